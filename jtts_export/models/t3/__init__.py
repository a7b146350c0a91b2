"""T3, the speech-token language model of Chatterbox."""
