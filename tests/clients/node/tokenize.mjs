// Tokenizes with transformers.js as kokoro-js does. Request: {release, texts}. Answer: the ids of each text.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoTokenizer, env } from "@huggingface/transformers";

const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(request.release);
const tokenizer = await AutoTokenizer.from_pretrained(basename(request.release));
console.log(JSON.stringify(request.texts.map((text) => Array.from(tokenizer(text).input_ids.data, Number))));
