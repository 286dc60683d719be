"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { listener: "", trials: [], at: 0, done: 0, scores: {}, heard: false, began: 0 };
const comparing = data.method === "mushra";
let context = null, buffers = new Map(), playing = null;

/** An element with attributes and children; text is never read as markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

async function ask(path, body) {
  const reply = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  const told = await reply.json();
  if (!reply.ok) throw new Error(told.error);
  return told;
}

/* ---- sound ---- */

async function load(trial) {
  const wanted = [...new Set([trial.reference, ...trial.sounds].filter(Boolean))];
  buffers = new Map(await Promise.all(wanted.map(async (id) => {
    const bytes = await (await fetch(`/sound/${id}.wav`)).arrayBuffer();
    return [id, await context.decodeAudioData(bytes)];
  })));
}

function stop() {
  if (!playing) return;
  for (const source of playing.sources) { source.onended = null; source.stop(); }
  playing = null;
  $("play").textContent = "▶ play";
  $("play").setAttribute("aria-pressed", "false");
}

function started(sources, gains, shown) {
  playing = { sources, gains, shown };
  $("play").textContent = "❚❚ stop";
  $("play").setAttribute("aria-pressed", "true");
}

/** MUSHRA: all sounds run together and all but one are mute, so that switching is a fade of 10 ms in its place. */
function loop(id) {
  const ids = [...buffers.keys()], at = context.currentTime + 0.03;
  stop();
  const gains = new Map(ids.map((one) => {
    const gain = context.createGain();
    gain.gain.value = one === id ? 1 : 0;
    gain.connect(context.destination);
    return [one, gain];
  }));
  const sources = ids.map((one) => {
    const source = context.createBufferSource();
    Object.assign(source, { buffer: buffers.get(one), loop: true });
    source.connect(gains.get(one));
    source.start(at);
    return source;
  });
  started(sources, gains, id);
}

/** ACR, DCR, DRT: the original if there is one, half a second, the sound; to its end, which opens the question. */
function once() {
  stop();
  const trial = state.trials[state.at], ids = [trial.reference, trial.sounds[0]].filter(Boolean);
  let at = context.currentTime + 0.05;
  const sources = ids.map((id) => {
    const source = context.createBufferSource();
    source.buffer = buffers.get(id);
    source.connect(context.destination);
    source.start(at);
    at += source.buffer.duration + 0.5;
    return source;
  });
  sources.at(-1).onended = () => { stop(); state.heard = true; update(); };
  started(sources, null, null);
}

function toggle() {
  if (playing) stop();
  else if (comparing) listen(state.chosen);
  else once();
}

/** The sound of a MUSHRA trial that one hears: switched to if something plays, else begun. */
function listen(id) {
  state.chosen = id;
  for (const button of document.querySelectorAll("#question button[data-id]")) button.setAttribute("aria-pressed", String(button.dataset.id === id));
  if (!playing) { loop(id); return; }
  playing.shown = id;
  for (const [one, gain] of playing.gains) gain.gain.setTargetAtTime(one === id ? 1 : 0, context.currentTime, 0.003);
}

/* ---- questions ---- */

function update() {
  const trial = state.trials[state.at], rated = trial.sounds.every((id) => id in state.scores);
  for (const button of document.querySelectorAll(".choices button")) {
    button.disabled = !state.heard;
    button.setAttribute("aria-checked", String(Number(button.value) === state.scores[trial.sounds[0]]));
  }
  $("next").disabled = !rated;
}

function rate(id, score) {
  state.scores[id] = score;
  update();
}

/** A row with a slider for each sound, and the reference above them. */
function sliders(trial) {
  const words = make("div", { class: "scale" }, ...data.words.map((word) => make("span", {}, word)));
  const names = make("div", { class: "sound names", "aria-hidden": "true" }, "", words, "");
  const reference = make("div", { class: "sound" },
    make("button", { type: "button", "data-id": trial.reference, "aria-pressed": "true", onclick: () => listen(trial.reference) }, make("kbd", {}, "0"), " ref."),
    make("strong", {}, "Reference"), "");
  const rows = trial.sounds.map((id, place) => {
    const shown = make("output", {}, "–");
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `Quality of sound ${place + 1}`, "data-id": id });
    const changed = () => { shown.textContent = slider.value; rate(id, Number(slider.value)); };
    slider.addEventListener("input", changed);
    slider.addEventListener("focus", () => listen(id));
    const button = make("button", { type: "button", "data-id": id, "aria-pressed": "false", onclick: () => slider.focus() }, make("kbd", {}, `${place + 1}`), " play");
    return make("div", { class: "sound" }, button, slider, shown);
  });
  state.chosen = trial.reference;
  return [reference, names, ...rows];
}

/** Five buttons of a category scale, the best first, or two of words. */
function choices(trial) {
  const words = trial.words.length ? trial.words.map((word, place) => [word, place]) : data.words.map((word, place) => [word, place + 1]).reverse();
  return [make("div", { class: `choices ${trial.words.length ? "words" : ""}`, role: "radiogroup", "aria-label": data.task }, ...words.map(([word, value], place) =>
    make("button", { type: "button", role: "radio", value, onclick: () => rate(trial.sounds[0], value) },
      make("kbd", {}, `${trial.words.length ? place + 1 : value}`), ` ${word}`)))];
}

async function show() {
  stop();
  const trial = state.trials[state.at];
  $("trial").hidden = !trial;
  $("thanks").hidden = Boolean(trial);
  if (!trial) return;
  Object.assign(state, { scores: {}, heard: false, began: performance.now() });
  const all = state.done + state.trials.length, number = state.done + state.at + 1;
  $("progress").textContent = `${number} of ${all}`;
  $("meter").value = (number - 1) / all;
  $("play").disabled = true;
  await load(trial);
  $("question").replaceChildren(...(comparing ? sliders(trial) : choices(trial)));
  $("trial").dataset.key = trial.key;
  $("play").disabled = false;
  update();
}

async function next() {
  if ($("next").disabled) return;
  $("next").disabled = true;
  const trial = state.trials[state.at], seconds = (performance.now() - state.began) / 1000;
  try {
    await ask("/answers", { listener: state.listener, trial: trial.key, scores: state.scores, seconds });
  } catch (error) {
    complain(`The answer was not taken: ${error.message}. Try again.`);
    $("next").disabled = false;
    return;
  }
  complain("");
  state.at += 1;
  show();
}

$("title").textContent = `Listening test (${data.title})`;
$("task").textContent = data.task;
$("keys").replaceChildren(...(comparing
  ? [make("kbd", {}, "0"), " – ", make("kbd", {}, "9"), " choose a sound, ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " rate it, "]
  : [make("kbd", {}, "1"), " – ", make("kbd", {}, data.method === "drt" ? "2" : "5"), " answer, "]),
  make("kbd", {}, "space"), " plays, ", make("kbd", {}, "enter"), " goes on.");

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  context ??= new AudioContext();
  await context.resume();
  state.listener = $("listener").value.trim();
  try {
    const told = await ask(`/trials?listener=${encodeURIComponent(state.listener)}`);
    Object.assign(state, { trials: told.trials, done: told.done, at: 0 });
  } catch (error) {
    complain(error.message);
    return;
  }
  complain("");
  $("start").hidden = true;
  show();
});
$("play").addEventListener("click", toggle);
$("next").addEventListener("click", next);

document.addEventListener("keydown", (event) => {
  if ($("trial").hidden || $("play").disabled || event.ctrlKey || event.metaKey || event.altKey) return;
  const trial = state.trials[state.at], number = /^[0-9]$/.test(event.key) ? Number(event.key) : NaN;
  if (event.key === " ") toggle();
  else if (event.key === "Enter") next();
  else if (comparing && number === 0) { document.activeElement.blur(); listen(trial.reference); }
  else if (comparing && number <= trial.sounds.length) document.querySelector(`input[data-id="${trial.sounds[number - 1]}"]`).focus();
  else if (!comparing && state.heard && trial.words.length && number >= 1 && number <= 2) rate(trial.sounds[0], number - 1);
  else if (!comparing && state.heard && !trial.words.length && number >= 1 && number <= 5) rate(trial.sounds[0], number);
  else return;
  event.preventDefault();
});
// a button that has the focus would be pressed by the space bar's release as well
document.addEventListener("keyup", (event) => event.key === " " && !$("trial").hidden && event.preventDefault());
