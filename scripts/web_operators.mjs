// Runs small graphs in onnxruntime-web's wasm backend. Arguments: the package to import, a file of cases, a file to
// append answers to, the number of the first case. A case is a line of JSON: {model, inputs: {name: {type, dims, data}},
// outputs: [name]}, model and data as base64. An answer is {number, outputs: [{type, dims, data}]} or {number, error}.
import { Buffer } from "node:buffer";
import { appendFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , name, cases, answers, first] = process.argv;
const ort = createRequire(`${process.cwd()}/`)(name);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const KINDS = {
  float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array, bool: Uint8Array,
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array,
};

function tensor({ type, dims, data }) {
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  return new ort.Tensor(type, new KINDS[type](bytes.buffer), dims);
}

function plain({ type, dims, data }) {
  return { type, dims, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") };
}

async function run({ model, inputs, outputs }) {
  const session = await ort.InferenceSession.create(new Uint8Array(Buffer.from(model, "base64")));
  try {
    const feed = Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, tensor(value)]));
    const made = await session.run(feed, outputs);
    return { outputs: outputs.map((key) => plain(made[key])) };
  } finally {
    await session.release();
  }
}

const lines = readFileSync(cases, "utf8").trim().split("\n");
for (let number = Number(first); number < lines.length; number++) {
  let answer;
  try {
    answer = await run(JSON.parse(lines[number]));
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  appendFileSync(answers, `${JSON.stringify({ number, ...answer })}\n`);
  if (/abort|unreachable|out of bounds/i.test(answer.error ?? "")) process.exit(9); // what follows needs a new runtime
}
