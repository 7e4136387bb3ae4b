// The viewer shows a photo, covered by its classes or by an edited version.
//
// gr.HTML runs this once, as the body of a function, with `element`, `props` and `watch`. props.value is
//   {photo: file, labels: file, width, height, classes: [{index, name, colour, share}],
//    layers: [{name, file}], shown: name of the layer to show first, or null for the classes}
// where labels is the label map, one byte per pixel, gzip-compressed. The canvas has the screen's pixels, not the
// photo's: each looks up its class, so edges are sharp at every zoom and a change of colours takes one pass.

const find = (name) => element.querySelector(".viewer-" + name);
const stage = find("stage"), canvas = find("canvas"), divider = find("divider"), message = find("message");
const context = canvas.getContext("2d", {alpha: false});
const scratch = document.createElement("canvas");

const BACKGROUND = "#15181d";
const SMALL = 2048; // Longer side of the reduced copy, drawn while the photo is displayed smaller than this.
const HIGHEST = 32; // Maximum zoom in screen pixels per photo pixel.

let picture = null; // The current content: {value, photo, labels, layers: {name: bitmaps}}
let layer = null; // Name of the edit over the photo; null for the classes.
let hidden = new Set(); // Classes that are switched off.
let opacity = 0.55;
let split = 0; // Position of the divider from 0 to 1; left of it only the photo is visible.
let view = {x: 0, y: 0, scale: 1}; // Photo coordinates of the canvas's top left corner; screen pixels per photo pixel.
let pending = 0;

// ---- Content

// Load a picture at full and reduced size. A device that cannot hold the full size gets a smaller one.
async function bitmaps(file, width, height) {
  const blob = await (await fetch(file.url)).blob();
  const shrunk = (side) => {
    const ratio = Math.min(1, side / Math.max(width, height));
    const size = {resizeWidth: Math.max(1, Math.round(width * ratio)), resizeHeight: Math.max(1, Math.round(height * ratio))};
    return createImageBitmap(blob, {...size, resizeQuality: "high"});
  };
  const small = await shrunk(SMALL);
  const full = await createImageBitmap(blob).catch(() => shrunk(2 * SMALL)).catch(() => small);
  return {small, full};
}

async function unpacked(file) {
  const packed = (await fetch(file.url)).body;
  return new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

const close = (found) => { for (const bitmap of Object.values(found)) bitmap.close(); };

let turn = 0;
async function load(value) {
  const mine = ++turn;
  if (!value) return;
  stage.dataset.state = picture ? "ready" : "loading";
  message.textContent = "Loading …";
  const isNew = !picture || picture.value.photo.url !== value.photo.url;
  const {width, height} = value;
  let next;
  try {
    const [photo, labels] = isNew
      ? await Promise.all([bitmaps(value.photo, width, height), unpacked(value.labels)])
      : [picture.photo, picture.labels];
    next = {value, photo, labels, layers: {}};
    for (const {name, file} of value.layers) next.layers[name] = await bitmaps(file, width, height);
  } catch (error) {
    stage.dataset.state = "failed";
    message.textContent = "The result could not be loaded (" + error.message + "). Upload the photo again.";
    return;
  }
  if (mine !== turn) return; // Superseded by a newer value.
  if (picture) {
    Object.values(picture.layers).forEach(close);
    if (isNew) close(picture.photo);
  }
  picture = next;
  layer = value.shown;
  if (isNew) hidden = new Set();
  stage.style.setProperty("--shape", height / width);
  stage.dataset.state = "ready";
  find("controls").hidden = false;
  showControls();
  resize();
  if (isNew) fit();
  // Beside an edit, half of the photo stays visible for comparison.
  moveDivider(layer ? 0.5 : 0);
}

function button(parent, pressed, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.setAttribute("aria-pressed", pressed);
  made.addEventListener("click", () => { act(); showControls(); redraw(); });
  parent.append(made);
  return made;
}

function showControls() {
  const layers = find("layers"), legend = find("legend");
  layers.replaceChildren();
  legend.replaceChildren();
  if (picture.value.layers.length) {
    for (const name of [null, ...picture.value.layers.map((found) => found.name)]) {
      button(layers, layer === name, () => { layer = name; }).textContent = name || "Classes";
    }
  }
  for (const {index, name, colour, share} of picture.value.classes) {
    const chip = button(legend, !hidden.has(index), () => { hidden.delete(index) || hidden.add(index); });
    chip.dataset.label = name;
    chip.append(document.createElement("i"), document.createElement("span"), document.createElement("small"));
    chip.children[0].style.background = colour;
    chip.children[1].textContent = name;
    chip.children[2].textContent = (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";
  }
  legend.classList.toggle("viewer-off", layer !== null);
  find("opacity").classList.toggle("viewer-off", layer !== null);
}

// ---- Drawing

function redraw() {
  pending ||= requestAnimationFrame(() => { pending = 0; draw(); });
}

// The rectangle of the canvas that the photo covers.
function frame() {
  const left = -view.x * view.scale, top = -view.y * view.scale;
  return {
    left: Math.max(0, Math.floor(left)),
    top: Math.max(0, Math.floor(top)),
    right: Math.min(canvas.width, Math.ceil(left + picture.value.width * view.scale)),
    bottom: Math.min(canvas.height, Math.ceil(top + picture.value.height * view.scale)),
  };
}

function drawBitmaps({small, full}) {
  const {width, height} = picture.value;
  const bitmap = width * view.scale <= small.width ? small : full;
  // Draw only the visible part, in whole pixels.
  const left = Math.max(0, Math.floor(view.x)), top = Math.max(0, Math.floor(view.y));
  const right = Math.min(width, Math.ceil(view.x + canvas.width / view.scale));
  const bottom = Math.min(height, Math.ceil(view.y + canvas.height / view.scale));
  if (right <= left || bottom <= top) return;
  const across = bitmap.width / width, down = bitmap.height / height;
  context.imageSmoothingEnabled = view.scale < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    bitmap, left * across, top * down, (right - left) * across, (bottom - top) * down,
    (left - view.x) * view.scale, (top - view.y) * view.scale, (right - left) * view.scale, (bottom - top) * view.scale,
  );
}

// For each of the canvas's columns (or rows), the indices of the `samples` photo columns (or rows) that it shows.
function lookups(first, last, origin, length, samples) {
  const found = new Int32Array((last - first) * samples);
  for (let i = 0; i < found.length; i++) {
    const place = Math.floor(origin + (first + (i + 0.5) / samples) / view.scale);
    found[i] = Math.min(length - 1, Math.max(0, place));
  }
  return found;
}

function drawClasses(box) {
  const across = box.right - box.left, down = box.bottom - box.top;
  if (across <= 0 || down <= 0) return;
  const {width, height, classes} = picture.value, labels = picture.labels;
  const colours = new Int32Array(256).fill(-1);
  for (const {index, colour} of classes) if (!hidden.has(index)) colours[index] = parseInt(colour.slice(1), 16);
  // If the screen is coarser than the photo, each of its pixels averages four samples.
  const samples = view.scale < 1 ? 2 : 1;
  const columns = lookups(box.left, box.right, view.x, width, samples);
  const rows = lookups(box.top, box.bottom, view.y, height, samples);
  const pixels = new ImageData(across, down), data = pixels.data;
  const strength = (255 * opacity) / (samples * samples);
  for (let y = 0, at = 0; y < down; y++) {
    for (let x = 0; x < across; x++, at += 4) {
      let red = 0, green = 0, blue = 0, count = 0;
      for (let row = y * samples; row < (y + 1) * samples; row++) {
        const start = rows[row] * width;
        for (let column = x * samples; column < (x + 1) * samples; column++) {
          const colour = colours[labels[start + columns[column]]];
          if (colour < 0) continue;
          red += colour >> 16;
          green += (colour >> 8) & 255;
          blue += colour & 255;
          count++;
        }
      }
      if (!count) continue;
      data[at] = red / count;
      data[at + 1] = green / count;
      data[at + 2] = blue / count;
      data[at + 3] = strength * count;
    }
  }
  scratch.width = across;
  scratch.height = down;
  scratch.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(scratch, box.left, box.top);
}

// Show transparency as a checkerboard.
function drawSquares(box) {
  const side = 10 * devicePixelRatio;
  context.fillStyle = "#fff";
  context.fillRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  context.fillStyle = "#d4d7dc";
  for (let y = box.top, row = 0; y < box.bottom; y += side, row++) {
    for (let x = box.left + (row % 2) * side; x < box.right; x += 2 * side) context.fillRect(x, y, side, side);
  }
}

function draw() {
  const {width, height} = canvas;
  context.fillStyle = BACKGROUND;
  context.fillRect(0, 0, width, height);
  if (!picture) return;
  drawBitmaps(picture.photo);
  const box = frame();
  box.left = Math.max(box.left, Math.round(split * width));
  if (layer === null) {
    drawClasses(box);
  } else if (box.right > box.left) {
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    context.clip();
    drawSquares(box);
    drawBitmaps(picture.layers[layer]);
    context.restore();
  }
  find("scale").textContent = (100 * view.scale).toFixed(view.scale < 0.1 ? 1 : 0) + " %";
  // When not zoomed in, touch scrolls the page.
  canvas.style.touchAction = view.scale > fitScale() * 1.01 ? "none" : "pan-y";
}

// ---- Moving

const fitScale = () => Math.min(canvas.width / picture.value.width, canvas.height / picture.value.height);

// Keep the photo in view, and centred where it is smaller than the canvas.
function clamp() {
  const lowest = Math.min(fitScale(), 1);
  view.scale = Math.min(Math.max(HIGHEST, fitScale()), Math.max(lowest, view.scale));
  for (const [axis, length, seen] of [
    ["x", picture.value.width, canvas.width / view.scale],
    ["y", picture.value.height, canvas.height / view.scale],
  ]) {
    view[axis] = seen >= length ? (length - seen) / 2 : Math.min(length - seen, Math.max(0, view[axis]));
  }
  redraw();
}

function fit() {
  view.scale = fitScale();
  clamp();
}

// Zoom around a fixed point of the canvas.
function zoom(factor, x = canvas.width / 2, y = canvas.height / 2) {
  const before = view.scale;
  const scale = Math.min(Math.max(HIGHEST, fitScale()), Math.max(Math.min(fitScale(), 1), before * factor));
  view.x += x / before - x / scale;
  view.y += y / before - y / scale;
  view.scale = scale;
  clamp();
}

function move(x, y) {
  view.x -= x / view.scale;
  view.y -= y / view.scale;
  clamp();
}

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  const ratio = canvas.width / box.width;
  return {x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio};
};

const fingers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  if (!picture) return;
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, place(event));
});
canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = place(event);
  fingers.set(event.pointerId, now);
  if (fingers.size === 1) move(now.x - before.x, now.y - before.y);
  if (fingers.size !== 2) return;
  const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, found]) => found);
  const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y);
  move((now.x - before.x) / 2, (now.y - before.y) / 2);
  if (distance(before) > 0) zoom(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
}
canvas.addEventListener("wheel", (event) => {
  if (!picture) return;
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
  const {x, y} = place(event);
  zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), x, y);
}, {passive: false});
canvas.addEventListener("dblclick", (event) => {
  if (!picture) return;
  const {x, y} = place(event);
  if (view.scale > fitScale() * 1.01) fit();
  else zoom(1 / view.scale, x, y);
});
const STEP = 60;
const KEYS = {
  ArrowLeft: () => move(STEP, 0), ArrowRight: () => move(-STEP, 0), ArrowUp: () => move(0, STEP),
  ArrowDown: () => move(0, -STEP), "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": fit,
};
canvas.addEventListener("keydown", (event) => {
  if (!picture || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
const ZOOMS = {in: () => zoom(1.5), out: () => zoom(1 / 1.5), full: () => zoom(1 / view.scale), fit};
for (const tool of element.querySelectorAll("[data-zoom]")) {
  tool.addEventListener("click", () => picture && ZOOMS[tool.dataset.zoom]());
}

// ---- Comparing

function moveDivider(to) {
  split = Math.min(1, Math.max(0, to));
  divider.setAttribute("aria-valuenow", Math.round(100 * split));
  // Keep the handle within reach at both ends.
  divider.style.left = "clamp(22px, " + 100 * split + "%, calc(100% - 22px))";
  redraw();
}
divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
divider.addEventListener("pointermove", (event) => {
  if (divider.hasPointerCapture(event.pointerId)) moveDivider(place(event).x / canvas.width);
});
divider.addEventListener("keydown", (event) => {
  const step = {ArrowLeft: -0.05, ArrowRight: 0.05, Home: -1, End: 1}[event.key];
  if (!step) return;
  event.preventDefault();
  moveDivider(split + step);
});
find("opacity").querySelector("input").addEventListener("input", (event) => {
  opacity = event.target.value / 100;
  redraw();
});

// ---- Size

function resize() {
  const ratio = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (!width || !height || (width === canvas.width && height === canvas.height)) return;
  const whole = picture && view.scale <= fitScale() * 1.01;
  canvas.width = width;
  canvas.height = height;
  if (!picture) redraw();
  else if (whole) fit();
  else clamp();
}
new ResizeObserver(resize).observe(canvas);

watch("value", () => load(props.value));
load(props.value);
