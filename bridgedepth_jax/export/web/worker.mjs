// The model in a thread of its own: WebGPU where there is one, else WebAssembly. Messages: {model} once, then {left, right, shape}.

const runtime = new URL("./runtime/", import.meta.url);
let ort, session;

async function fetched(url, bytes) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const parts = [];
  let done = 0;
  for (const reader = response.body.getReader(); ;) {
    const { value, done: end } = await reader.read();
    if (end) break;
    parts.push(value);
    done += value.length;
    postMessage({ kind: "progress", share: Math.min(1, done / bytes) });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function create(model, provider) {
  ort = await import(new URL(`ort.${provider}.bundle.min.mjs`, runtime));
  ort.env.wasm.wasmPaths = runtime.href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  ort.env.logLevel = "error";
  return ort.InferenceSession.create(model, { executionProviders: [provider] });
}

async function load({ model, bytes }) {
  const content = await fetched(model, bytes);
  let adapter = null;
  try {
    adapter = await navigator.gpu?.requestAdapter();
  } catch { /* none */ }
  let provider = adapter ? "webgpu" : "wasm";
  try {
    session = await create(content, provider);
  } catch (error) {
    if (provider === "wasm") throw error;
    session = await create(content, (provider = "wasm"));
  }
  const threads = provider === "wasm" ? ort.env.wasm.numThreads : 0;
  postMessage({ kind: "ready", provider: threads > 1 ? `${provider}, ${threads} threads` : provider });
}

async function run({ left, right, shape }) {
  const started = performance.now();
  const inputs = { left: new ort.Tensor("uint8", left, shape), right: new ort.Tensor("uint8", right, shape) };
  const { disparity, confidence } = await session.run(inputs);
  const result = { disparity: await disparity.getData(), confidence: await confidence.getData() };
  postMessage({ kind: "result", ...result, seconds: (performance.now() - started) / 1000 });
}

let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(() => (data.model ? load(data) : run(data))).catch((error) => postMessage({ kind: "error", message: String(error.message ?? error) }));
};
