"use strict";

/* ---- the player ---- */

const decoded = new Map();  // of the clip that is shown
let context = null, playing = null;

/** A clip's sounds as AudioBuffers, decoded once; an offline context needs no permission to make sound. */
function decode(index) {
  if (!decoded.has(index)) {
    const offline = new OfflineAudioContext(1, 1, 16000);
    decoded.set(index, Promise.all(data.clips[index].sounds.map(({ flac }) =>
      offline.decodeAudioData(Uint8Array.from(atob(flac), (character) => character.charCodeAt(0)).buffer))));
  }
  return decoded.get(index);
}

function position() {
  if (!playing) return state.at ?? 0;
  const passed = playing.at + (context.currentTime - playing.started);
  return playing.loop ? passed % playing.seconds : Math.min(passed, playing.seconds);
}

function stop() {
  if (!playing) return;
  state.at = position();
  for (const source of playing.sources) { source.onended = null; source.stop(); }
  playing = null;
  $("play").textContent = "▶ play";
  $("play").setAttribute("aria-pressed", "false");
}

/** All versions run together and all but one are mute, so that a change of codec is a fade of 10 ms in its place. */
async function play() {
  stop();
  const index = state.clip, buffers = await decode(index);
  if (index !== state.clip || playing) return;
  context ??= new AudioContext();
  await context.resume();
  const seconds = buffers[0].duration, loop = $("loop").checked, at = (state.at ?? 0) < seconds - 0.05 ? state.at ?? 0 : 0;
  const started = context.currentTime + 0.03;
  const gains = buffers.map((_, version) => {
    const gain = context.createGain();
    gain.gain.value = version === state.version ? data.clips[index].sounds[version].gain : 0;
    gain.connect(context.destination);
    return gain;
  });
  const sources = buffers.map((buffer, version) => {
    const source = context.createBufferSource();
    Object.assign(source, { buffer, loop });
    source.connect(gains[version]);
    source.start(started, at);
    return source;
  });
  sources[0].onended = () => { stop(); state.at = 0; };
  playing = { sources, gains, started, at, seconds, loop };
  $("play").textContent = "❚❚ pause";
  $("play").setAttribute("aria-pressed", "true");
}

function showVersion(version) {
  const sounds = data.clips[state.clip].sounds;
  state.version = (version + sounds.length) % sounds.length;
  [...$("versions").children].forEach((button, index) => button.setAttribute("aria-checked", String(index === state.version)));
  if (playing) {
    playing.gains.forEach((gain, index) =>
      gain.gain.setTargetAtTime(index === state.version ? sounds[index].gain : 0, context.currentTime, 0.003));
  }
  drawSpectrogram();
}

function showClip(index) {
  const was = playing, label = data.clips[state.clip].sounds[state.version]?.label;
  stop();
  state.clip = (index + data.clips.length) % data.clips.length;
  decoded.clear();  // a hundred clips would fill the memory
  pictures.clear();
  state.at = 0;
  const clip = data.clips[state.clip];
  [...$("clips").children].forEach((button, at) => {
    button.setAttribute("aria-selected", String(at === state.clip));
    if (at === state.clip && button.parentElement.scrollWidth > button.parentElement.clientWidth) {
      button.parentElement.scrollLeft = button.offsetLeft - button.parentElement.offsetLeft;
    }
  });
  $("versions").replaceChildren(...clip.sounds.map((sound, at) => make(
    "button", { type: "button", role: "radio", onclick: () => showVersion(at) },
    ...(at < 10 ? [make("kbd", {}, `${at}`)] : []), ...(at ? [dot(sound.label)] : []), sound.label,
  )));
  drawScores(clip);
  showVersion(Math.max(0, clip.sounds.findIndex((sound) => sound.label === label)));
  if (was) play();
}

function drawScores(clip) {
  const rows = clip.sounds.map(({ label }) => byFile.get(clip.file).get(label)).filter(Boolean);
  table($("scores"), [
    { title: "this clip", value: (row) => row.label, cell: (row) => named(row.label), best: 0 },
    { title: "kbit/s", value: (row) => row.kbps, cell: (row) => make("td", {}, short(row.kbps)), best: 0 },
    ...metrics.map((metric) => ({
      title: title(metric), value: (row) => row.scores[metric], cell: (row) => make("td", {}, short(row.scores[metric])), best: better(metric),
    })),
    { title: "remarks", value: (row) => row.problem, best: 0, cell: (row) => make("td", { class: `text ${row.problem ? "bad" : ""}` }, [row.problem, ...row.notes].filter(Boolean).join("; ")) },
  ], rows);
}

/* ---- spectrograms ---- */

const size = 512, bins = size / 2, columns = 900, floor = -85, top_ = -15, reach = 30;
const shade = Float32Array.from({ length: size }, (_, n) => 0.5 - 0.5 * Math.cos(2 * Math.PI * n / size));
const pictures = new Map();

/** Radix-2 transform in place. */
function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let span = 2; span <= n; span <<= 1) {
    const half = span >> 1;
    for (let k = 0; k < half; k++) {
      const cos = Math.cos(2 * Math.PI * k / span), sin = -Math.sin(2 * Math.PI * k / span);
      for (let i = k; i < n; i += span) {
        const r = re[i + half] * cos - im[i + half] * sin, m = re[i + half] * sin + im[i + half] * cos;
        re[i + half] = re[i] - r; im[i + half] = im[i] - m;
        re[i] += r; im[i] += m;
      }
    }
  }
}

/** Levels in dB at equal loudness, [columns * bins], lowest frequency first; a full sine is 0. */
function levels(buffer, gain) {
  const samples = buffer.getChannelData(0), found = new Float32Array(columns * bins);
  const re = new Float32Array(size), im = new Float32Array(size);
  for (let column = 0; column < columns; column++) {
    const start = Math.round(column / (columns - 1) * Math.max(0, samples.length - size));
    for (let n = 0; n < size; n++) re[n] = (samples[start + n] ?? 0) * shade[n] * gain;
    im.fill(0);
    fft(re, im);
    for (let bin = 0; bin < bins; bin++) {
      found[column * bins + bin] = 10 * Math.log10((re[bin] ** 2 + im[bin] ** 2) * (4 / size) ** 2 + 1e-12);
    }
  }
  return found;
}

/** 256 opaque colours between some that are given as [red, green, blue]. */
function palette(stops) {
  return Array.from({ length: 256 }, (_, index) => {
    const at = Math.min(0.9999, index / 255) * (stops.length - 1), low = Math.floor(at);
    return [...stops[low].map((value, channel) => value + (at - low) * (stops[low + 1][channel] - value)), 255];
  });
}

const heat = palette([[0, 0, 4], [60, 15, 110], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]]);
const sides = palette([[110, 180, 255], [30, 80, 190], [12, 12, 16], [190, 50, 30], [255, 180, 90]]);

async function drawSpectrogram() {
  const { clip, version } = state, difference = $("difference").checked && version > 0;
  const buffers = await decode(clip), sounds = data.clips[clip].sounds;
  if (clip !== state.clip || version !== state.version) return;
  const picture = (index) => {
    const key = `${clip} ${index}`;
    if (!pictures.has(key)) pictures.set(key, levels(buffers[index], sounds[index].gain));
    return pictures.get(key);
  };
  const ours = picture(version), theirs = difference ? picture(0) : null;
  const canvas = $("spectrogram"), ink = canvas.getContext("2d"), image = ink.createImageData(columns, bins);
  for (let column = 0; column < columns; column++) {
    for (let bin = 0; bin < bins; bin++) {
      const level = ours[column * bins + bin];
      const share = difference
        ? 0.5 + (Math.max(level, floor) - Math.max(theirs[column * bins + bin], floor)) / (2 * reach)
        : (level - floor) / (top_ - floor);
      image.data.set((difference ? sides : heat)[Math.round(255 * Math.min(1, Math.max(0, share)))], 4 * ((bins - 1 - bin) * columns + column));
    }
  }
  ink.putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", `Spectrogram of ${sounds[version].label}`);
  canvas.dataset.drawn = `${clip} ${version}${difference ? " difference" : ""}`;
  $("scale").textContent = difference
    ? `0 to 8 kHz; blue is missing, red is added, ${reach} dB at the ends.`
    : `${sounds[version].label}: 0 to 8 kHz, ${floor} to ${top_} dB.`;
}

function tick() {
  const seconds = data.clips[state.clip].seconds, at = position();
  $("cursor").style.left = `${100 * at / seconds}%`;
  $("clock").textContent = `${at.toFixed(1)} / ${seconds.toFixed(1)} s`;
  requestAnimationFrame(tick);
}

function startPlayer() {
  if (!data.clips.length) { $("listen").hidden = true; return; }
  $("clips").replaceChildren(...data.clips.map((clip, index) => make(
    "button", { type: "button", role: "option", onclick: () => showClip(index) }, ...path(clip.file),
  )));
  $("play").addEventListener("click", () => (playing ? stop() : play()));
  $("loop").addEventListener("change", () => playing && play());
  $("difference").addEventListener("change", drawSpectrogram);
  // ticked with a mouse it gives the focus back, or the space bar would tick it again instead of playing
  for (const box of [$("loop"), $("difference")]) box.addEventListener("click", (event) => event.detail && box.blur());
  $("spectrogram").addEventListener("click", (event) => {
    const was = playing, share = event.offsetX / $("spectrogram").clientWidth;
    stop();
    state.at = share * data.clips[state.clip].seconds;
    if (was) play();
  });
  const keys = {
    " ": () => (playing ? stop() : play()),
    ArrowRight: () => showVersion(state.version + 1),
    ArrowLeft: () => showVersion(state.version - 1),
    ArrowDown: () => showClip(state.clip + 1),
    ArrowUp: () => showClip(state.clip - 1),
    d: () => $("difference").click(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
    const number = /^[0-9]$/.test(event.key) && Number(event.key) < data.clips[state.clip].sounds.length;
    if (!number && !(event.key in keys)) return;
    event.preventDefault();
    if (number) showVersion(Number(event.key));
    else keys[event.key]();
  });
  // a button that has the focus would be pressed by the space bar's release as well
  document.addEventListener("keyup", (event) => event.key === " " && !/^(SELECT|INPUT)$/.test(event.target.tagName) && event.preventDefault());
  showClip(0);
  tick();
}

/* ---- the page ---- */

function drawMetric() {
  drawConditions();
  drawCurves();
  drawPairs();
  drawFiles();
}

$("about").append(`${data.files} files, judged at 16 kHz. Made by `, make("code", {}, data.command));
$("metric").append(...metrics.map((metric) => make("option", { value: metric }, title(metric))));
$("metric").addEventListener("change", () => { state.metric = $("metric").value; drawMetric(); });
$("condition").append(...data.conditions.map((condition) => make("option", { value: condition }, condition)));
$("condition").addEventListener("change", () => { state.condition = $("condition").value; drawMeans(); drawMetric(); drawAgreements(); });
for (const id of ["choose-condition", "conditions-section"]) $(id).hidden = data.conditions.length < 2;
$("agreements-section").hidden = metrics.length < 2;
window.addEventListener("resize", drawCurves);
drawMeans();
drawListening();
drawMetric();
drawAgreements();
startPlayer();
