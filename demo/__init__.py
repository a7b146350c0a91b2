"""How the demo voice is made: sentences, speech by espeak-ng, training, evaluation, and the checkpoint."""
