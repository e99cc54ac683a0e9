// Two images in, disparity and confidence out. What is shown and saved has the size of the images, whatever the model sees.

const byId = (id) => document.getElementById(id);
const images = { left: null, right: null }; // canvases at the size of the files
let page, worker, model, result, ready = false, streams = [];

function say(text, error = false) {
  byId("status").textContent = text;
  byId("status").className = error ? "error" : "";
}

function update() {
  byId("run").disabled = !(ready && images.left && images.right);
}

// The model

function start() {
  worker?.terminate();
  [model, ready] = [page.models[byId("size").selectedIndex], false];
  update();
  worker = new Worker("worker.mjs", { type: "module" });
  worker.onmessage = ({ data }) => handlers[data.kind](data);
  worker.onerror = (event) => say(event.message ?? "The worker cannot be started", true);
  worker.postMessage({ model: new URL(model.file, location.href).href, bytes: model.bytes });
}

const handlers = {
  progress: ({ share }) => say(`Loading, ${Math.round(100 * share)} %`),
  ready: ({ provider }) => {
    ready = true;
    document.body.dataset.provider = provider;
    say(`Ready (${provider})`);
    update();
  },
  error: ({ message }) => say(message, true),
  result: ({ disparity, confidence, seconds }) => {
    const { width, height } = images.left;
    result = {
      width, height,
      disparity: resized(disparity, model, width, height, width / model.width),
      confidence: resized(confidence, model, width, height, 1),
      left: images.left,
    };
    byId("top").value = Math.max(1, Math.ceil(result.disparity.reduce((a, b) => Math.max(a, b), 0)));
    byId("results").hidden = false;
    draw();
    document.body.dataset.seconds = seconds.toFixed(2);
    say(`${seconds.toFixed(1)} s (${document.body.dataset.provider})`);
    update();
  },
};

function compute() {
  const { left, right } = images;
  if (left.width !== right.width || left.height !== right.height) {
    say(`The left image has ${left.width}x${left.height} pixels, the right one ${right.width}x${right.height}`, true);
    return;
  }
  byId("run").disabled = true;
  say("Computing");
  const planes = [left, right].map(channels);
  worker.postMessage({ left: planes[0], right: planes[1], shape: [1, 3, model.height, model.width] }, planes.map((p) => p.buffer));
}

// (3, H, W) uint8 at the size of the model.
function channels(image) {
  const { width, height } = model;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const planes = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) planes[c * width * height + i] = data[4 * i + c];
  return planes;
}

// Bilinear, pixels' centres at halves.
function resized(values, from, width, height, factor) {
  if (from.width === width && from.height === height) return values;
  const places = (size, old) => Array.from({ length: size }, (_, i) => {
    const x = Math.min(Math.max(((i + 0.5) * old) / size - 0.5, 0), old - 1), low = Math.floor(x);
    return [low, Math.min(low + 1, old - 1), x - low];
  });
  const made = new Float32Array(width * height), columns = places(width, from.width);
  places(height, from.height).forEach(([top, bottom, v], y) => {
    columns.forEach(([left, right, u], x) => {
      const row = (j) => values[j * from.width + left] * (1 - u) + values[j * from.width + right] * u;
      made[y * width + x] = factor * (row(top) * (1 - v) + row(bottom) * v);
    });
  });
  return made;
}

// Images in

function preview(side) {
  const image = images[side], canvas = byId(`preview-${side}`);
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  update();
}

function keep(side, source, x, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(source, x, 0, width, height, 0, 0, width, height);
  images[side] = canvas;
  preview(side);
}

async function read(side, file) {
  if (!file) return;
  try {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    if (Math.min(bitmap.width, bitmap.height) < page.minimum) {
      throw new Error(`${bitmap.width}x${bitmap.height} pixels, expected at least ${page.minimum}x${page.minimum}`);
    }
    keep(side, bitmap, 0, bitmap.width, bitmap.height);
    if (ready) say("Ready");
  } catch (error) {
    say(`${file.name}: ${error.name === "InvalidStateError" ? "not an image" : error.message}`, true);
  }
}

for (const side of ["left", "right"]) {
  const drop = byId(`drop-${side}`);
  byId(side).onchange = (event) => read(side, event.target.files[0]);
  drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    read(side, event.dataTransfer.files[0]);
  };
}

// Cameras: two, or one whose picture has both halves

async function openCameras() {
  try {
    (await navigator.mediaDevices.getUserMedia({ video: true })).getTracks().forEach((track) => track.stop()); // asks, so that names are known
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const option = ({ deviceId, label }, i) => new Option(label || `camera ${i + 1}`, deviceId);
    byId("device-left").replaceChildren(...devices.map(option));
    byId("device-right").replaceChildren(new Option("right half of the left camera's picture", ""), ...devices.map(option));
    byId("cameras").hidden = false;
    await watch();
  } catch (error) {
    say(`Camera: ${error.message}`, true);
  }
}

async function watch() {
  closeCameras();
  for (const side of ["left", "right"]) {
    const deviceId = byId(`device-${side}`).value, video = byId(`video-${side}`);
    video.hidden = !deviceId;
    if (!deviceId) continue;
    const stream = await navigator.mediaDevices.getUserMedia({ video: { deviceId: { exact: deviceId }, width: { ideal: 1280 } } });
    streams.push(stream);
    video.srcObject = stream;
    await video.play();
  }
}

function closeCameras() {
  streams.forEach((stream) => stream.getTracks().forEach((track) => track.stop()));
  streams = [];
}

function take() {
  const left = byId("video-left"), right = byId("video-right");
  if (byId("device-right").value) {
    keep("left", left, 0, left.videoWidth, left.videoHeight);
    keep("right", right, 0, right.videoWidth, right.videoHeight);
  } else {
    const half = left.videoWidth >> 1;
    keep("left", left, 0, half, left.videoHeight);
    keep("right", left, half, half, left.videoHeight);
  }
  if (ready) compute();
}

// Results out

function colored(values, top) {
  const { width, height } = result, image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const level = Math.round(255 * Math.min(Math.max(values[i] / top, 0), 1));
    image.data.set([page.colors[3 * level], page.colors[3 * level + 1], page.colors[3 * level + 2], 255], 4 * i);
  }
  return image;
}

function grey() {
  const { width, height, confidence } = result, image = new ImageData(width, height);
  confidence.forEach((value, i) => {
    const level = Math.round(255 * value);
    image.data.set([level, level, level, 255], 4 * i);
  });
  return image;
}

function picture(kind) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [result.width, result.height];
  const context = canvas.getContext("2d");
  if (kind === "left") context.drawImage(result.left, 0, 0);
  else context.putImageData(kind === "disparity" ? colored(result.disparity, Number(byId("top").value) || 1) : grey(), 0, 0);
  return canvas;
}

function draw() {
  const output = byId("output");
  [output.width, output.height] = [result.width, result.height];
  output.getContext("2d").drawImage(picture(byId("shown").value), 0, 0);
}

byId("output").onpointermove = ({ offsetX, offsetY, target }) => {
  const x = Math.min(Math.floor((offsetX / target.clientWidth) * result.width), result.width - 1);
  const y = Math.min(Math.floor((offsetY / target.clientHeight) * result.height), result.height - 1);
  const i = y * result.width + x;
  byId("value").textContent = `(${x}, ${y}): ${result.disparity[i].toFixed(2)} px, confidence ${result.confidence[i].toFixed(2)}`;
};

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Rows from the bottom up, little-endian.
function pfm({ width, height, disparity }) {
  const bytes = new DataView(new ArrayBuffer(4 * width * height));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) bytes.setFloat32(4 * ((height - 1 - y) * width + x), disparity[y * width + x], true);
  }
  return new Blob([`Pf\n${width} ${height}\n-1.0\n`, bytes.buffer]);
}

byId("run").onclick = compute;
byId("camera").onclick = openCameras;
byId("take").onclick = take;
byId("stop").onclick = () => { closeCameras(); byId("cameras").hidden = true; };
for (const side of ["left", "right"]) byId(`device-${side}`).onchange = () => watch().catch((error) => say(`Camera: ${error.message}`, true));
byId("shown").onchange = byId("top").onchange = () => draw();
byId("size").onchange = start;
byId("save-pfm").onclick = () => save(pfm(result), "disparity.pfm");
byId("save-png").onclick = () => picture("disparity").toBlob((blob) => save(blob, "disparity.png"));
byId("save-confidence").onclick = () => picture("confidence").toBlob((blob) => save(blob, "confidence.png"));

page = await (await fetch("page.json")).json();
byId("size").replaceChildren(...page.models.map(({ height, width }) => new Option(`${height}x${width}`)));
byId("about").textContent = page.about;
start();
