// Speaks with kokoro-js what the JSON request on standard input asks, and prints one line of JSON.
// Request: {release, dtype, voice, text | phonemes, speeds}. Answer: {ids, audio: [{samples, rate, frames, finite, peak}]}.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { env } from "@huggingface/transformers";
import { KokoroTTS } from "kokoro-js";

const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(request.release);
const tts = await KokoroTTS.from_pretrained(basename(request.release), { dtype: request.dtype, device: "cpu" });

// kokoro-js keeps only the waveform: record what else the graph said in the same run.
const model = tts.model;
let ids, duration;
tts.model = async (inputs) => {
  const outputs = await model(inputs);
  ids = Array.from(inputs.input_ids.data, Number);
  duration = Array.from(outputs.duration.data, Number);
  return outputs;
};

const audio = [];
for (const speed of request.speeds) {
  const options = { voice: request.voice, speed };
  const spoken = request.phonemes
    ? await tts.generate_from_ids(tts.tokenizer(request.phonemes, { truncation: true }).input_ids, options)
    : await tts.generate(request.text, options);
  audio.push({
    samples: spoken.audio.length,
    rate: spoken.sampling_rate,
    frames: duration.reduce((sum, frames) => sum + frames, 0),
    finite: spoken.audio.every(Number.isFinite),
    peak: spoken.audio.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0),
  });
}
console.log(JSON.stringify({ ids, audio }));
