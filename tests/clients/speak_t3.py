"""Speaks with T3's graphs as the community's sample scripts for Chatterbox in ONNX do: what the JSON request on
standard input asks, greedily, without guidance. Knows nothing of this project. Prints one line of JSON.

Request: {release, suffix, texts: [{text, voice, exaggeration}], max_tokens, penalty}. Answer: {spoken: [{ids, tokens,
alignment}]}.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from transformers import AutoTokenizer

START_SPEECH_TOKEN = 6561
STOP_SPEECH_TOKEN = 6562

request = json.load(sys.stdin)
release = Path(request["release"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1


def load(name):
    path = str(release / "onnx" / f"{name}{request['suffix']}.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


conditioning, embed_tokens, llama_with_past = map(load, ("conditioning", "embed_tokens", "language_model"))
tokenizer = AutoTokenizer.from_pretrained(release)
past_inputs = [i for i in llama_with_past.get_inputs() if i.name.startswith("past_key_values")]
heads, head_dim = past_inputs[0].shape[1], past_inputs[0].shape[3]
layers = len(past_inputs) // 2


def penalize(tokens, scores):
    """Like transformers' RepetitionPenaltyLogitsProcessor."""
    score = np.take_along_axis(scores, tokens, axis=1)
    score = np.where(score < 0, score * request["penalty"], score / request["penalty"])
    processed = scores.copy()
    np.put_along_axis(processed, tokens, score, axis=1)
    return processed


def condition(voice):
    """A voice's rows ahead of the prompt, which the sample scripts have of the speech encoder."""
    prompt = voice["cond_prompt_speech_tokens"]
    feed = {
        "input_ids": prompt.T,  # one token a row: of speech
        "position_ids": np.arange(prompt.shape[1], dtype=np.int64)[:, None],
        "exaggeration": np.zeros(1, np.float32),
    }
    (embeds,) = embed_tokens.run(None, feed)
    embeds = np.ascontiguousarray(embeds.swapaxes(0, 1))
    named = {"speaker_emb": voice["speaker_emb"], "cond_prompt_speech_emb": embeds}
    return conditioning.run(None, named)[0]


def speak(text, voice, exaggeration):
    input_ids = tokenizer(text, return_tensors="np")["input_ids"].astype(np.int64)
    ids = input_ids[0].tolist()
    position_ids = np.where(input_ids >= START_SPEECH_TOKEN, 0, np.arange(input_ids.shape[1])[np.newaxis, :] - 1)
    embed_inputs = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "exaggeration": np.array([exaggeration], dtype=np.float32),
    }
    generated = np.array([[START_SPEECH_TOKEN]], dtype=np.int64)
    for i in range(request["max_tokens"]):
        inputs_embeds = embed_tokens.run(None, embed_inputs)[0]
        if i == 0:
            inputs_embeds = np.concatenate((condition(voice), inputs_embeds), axis=1)
            batch_size, seq_len, _ = inputs_embeds.shape
            past_key_values = {
                f"past_key_values.{layer}.{kv}": np.zeros([batch_size, heads, 0, head_dim], dtype=np.float32)
                for layer in range(layers)
                for kv in ("key", "value")
            }
            attention_mask = np.ones((batch_size, seq_len), dtype=np.int64)
        logits, *present_key_values = llama_with_past.run(
            None, {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, **past_key_values}
        )
        logits = logits[:, -1, :]
        next_token = np.argmax(penalize(generated, logits), axis=-1, keepdims=True).astype(np.int64)
        generated = np.concatenate((generated, next_token), axis=-1)
        if (next_token.flatten() == STOP_SPEECH_TOKEN).all():
            break
        embed_inputs["input_ids"] = next_token
        embed_inputs["position_ids"] = np.full((input_ids.shape[0], 1), i + 1, dtype=np.int64)
        attention_mask = np.concatenate([attention_mask, np.ones((batch_size, 1), dtype=np.int64)], axis=1)
        for j, key in enumerate(past_key_values):
            past_key_values[key] = present_key_values[j]
    return {"ids": ids, "tokens": generated[0, 1:].tolist()}


spoken = []
for asked in request["texts"]:
    voice = load_file(release / "voices" / f"{asked['voice']}.safetensors")
    spoken.append(speak(asked["text"], voice, asked["exaggeration"]))
print(json.dumps({"spoken": spoken}))
