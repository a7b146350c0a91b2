// Speaks with transformers.js what the JSON request on standard input asks, and prints one line of JSON.
// Request: {release, dtype, requests: [{text, speaker, options}]}, where speaker is an x-vector's file and options are
// generate_speech's. Answer: {spoken: [{ids, dims, spectrogram, waveform}], piped: [{rate, waveform}], said}: tensors
// as base64 of float32; `piped` is what the text-to-speech pipeline makes of the same; `said`, what was logged.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoTokenizer, SpeechT5ForTextToSpeech, SpeechT5HifiGan, Tensor, env, pipeline } from "@huggingface/transformers";

const said = [];
for (const level of ["log", "info", "warn", "error"]) {
  console[level] = (...words) => said.push(`${level}: ${words.join(" ")}`);
}
const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(request.release);
const id = basename(request.release);
const { dtype } = request;
const base64 = ({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength).toString("base64");
const floats = (path) => new Float32Array(new Uint8Array(readFileSync(path)).buffer);

const tokenizer = await AutoTokenizer.from_pretrained(id);
const model = await SpeechT5ForTextToSpeech.from_pretrained(id, { dtype });
const vocoder = await SpeechT5HifiGan.from_pretrained(`${id}/vocoder`, { dtype });
const speech = await pipeline("text-to-speech", id, { dtype });
speech.vocoder = vocoder; // pipeline() takes none, and would fetch one

const spoken = [];
const piped = [];
for (const { text, speaker, options } of request.requests) {
  const { input_ids } = tokenizer(text);
  const vector = floats(speaker);
  const embeddings = new Tensor("float32", vector, [1, vector.length]);
  const { spectrogram, waveform } = await model.generate_speech(input_ids, embeddings, { ...options, vocoder });
  spoken.push({
    ids: Array.from(input_ids.data, Number),
    dims: spectrogram.dims,
    spectrogram: base64(spectrogram.data),
    waveform: base64(waveform.data),
  });
  if (!options) {
    const whole = await speech(text, { speaker_embeddings: vector });
    piped.push({ rate: whole.sampling_rate, waveform: base64(whole.audio) });
  }
}
process.stdout.write(`${JSON.stringify({ spoken, piped, said })}\n`);
