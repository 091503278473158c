// The page: sliders, figures, numbers. Text from files is only ever added as text.

const content = JSON.parse(document.getElementById("content").textContent);
const { emulator, run } = content;
const network = new Network(emulator);

/** Labels, units and limits of the outputs that are known; others have their name. */
const OUTPUTS = new Map([
  ["signal", { label: "T_{21}", unit: "mK" }],
  ["x_HI", { label: "x_\\mathrm{HI}", limits: [0, 1] }],
  ["tau", { label: "\\tau" }],
]);

// ---------------------------------------------------------------- text

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const SYMBOLS = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", zeta: "ζ", eta: "η", theta: "θ", kappa: "κ", lambda: "λ",
  mu: "μ", nu: "ν", xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", chi: "χ", psi: "ψ", omega: "ω",
  Gamma: "Γ", Delta: "Δ", Theta: "Θ", Lambda: "Λ", Omega: "Ω", star: "⋆", ast: "∗", odot: "⊙", log: "log", ln: "ln",
  ",": "\u2009", ";": "\u2005", " ": " ", "%": "%", _: "_",
};

/** The LaTeX of a label as a span; null if it uses more than letters, symbols, groups, \mathrm, _ and ^. */
function formula(latex) {
  const tokens = latex.match(/\\[A-Za-z]+|\\.|[^\s]/gu) || [];
  let at = 0;
  function group(upright) {
    if (tokens[at] !== "{") return atom(upright);
    at++;
    const made = document.createDocumentFragment();
    while (tokens[at] !== "}") made.append(atom(upright));
    at++;
    return made;
  }
  function atom(upright) {
    const token = tokens[at++];
    if (token === undefined || token === "}") throw new Error("unbalanced braces");
    if (token === "{") {
      at--;
      return group(upright);
    }
    if (token === "_" || token === "^") return element(token === "_" ? "sub" : "sup", {}, group(upright));
    if (["\\mathrm", "\\rm", "\\text"].includes(token)) return group(true);
    if (token[0] !== "\\") return !upright && /\p{L}/u.test(token) ? element("i", {}, token) : token;
    const symbol = Object.hasOwn(SYMBOLS, token.slice(1)) ? SYMBOLS[token.slice(1)] : undefined;
    if (symbol === undefined) throw new Error(`unknown symbol ${token}`);
    return symbol.length === 1 && /\p{Ll}/u.test(symbol) && !upright ? element("i", {}, symbol) : symbol;
  }
  const made = element("span", { className: "formula" });
  try {
    while (at < tokens.length) made.append(atom(false));
  } catch {
    return null;
  }
  return tokens.length ? made : null;
}

/** A number in at most `digits` significant digits, as one types it. */
function typed(value, digits = 6) {
  const number = Number(value.toPrecision(digits)), size = Math.abs(number);
  const plain = number === 0 || (size >= 1e-4 && size < 1e6);
  return (plain ? String(number) : number.toExponential()).replace("e+", "e");
}

function shown(value, decimals) {
  return value.toFixed(decimals).replace("-", "−");
}

// ---------------------------------------------------------------- parameters

const start = emulator.parameters.map((parameter, i) => (run ? run.best[i] : valueAt(parameter, 0.5)));
let theta = start.slice();

/** A parameter at a fraction of its range, with five digits of the range, so that the number shown is the number used. */
function valueAt(p, fraction) {
  if (fraction <= 0) return p.min;
  if (fraction >= 1) return p.max;
  let value;
  if (p.log) {
    value = Number((p.min * (p.max / p.min) ** fraction).toPrecision(5));
  } else {
    const decimals = Math.min(100, Math.max(0, 4 - Math.floor(Math.log10(p.max - p.min))));
    value = Number((p.min + (p.max - p.min) * fraction).toFixed(decimals));
  }
  return Math.min(p.max, Math.max(p.min, value));
}

function fractionAt(p, value) {
  const fraction = p.log ? Math.log(value / p.min) / Math.log(p.max / p.min) : (value - p.min) / (p.max - p.min);
  return Math.min(1, Math.max(0, fraction));
}

const SVG = "http://www.w3.org/2000/svg";

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The slider and the field of a parameter. */
class Control {
  constructor(parameter, i) {
    this.parameter = parameter;
    this.index = i;
    const p = parameter, id = `value-${i}`, label = formula(p.latex);
    this.field = element("input", { id, type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false });
    this.slider = element("input", { type: "range", min: 0, max: 1000, step: 1 });
    this.slider.setAttribute("aria-label", p.name);
    const name = element("label", { htmlFor: id });
    if (label) name.append(label, " ");
    name.append(element("span", { className: label ? "name" : "" }, p.name));
    const line = element("div", { className: "line" }, name, this.field);
    const limits = `${typed(p.min, 4)} … ${typed(p.max, 4)} ${p.unit}`.trim();
    const range = element("small", {}, `${limits}${p.log ? ", logarithmic" : ""}`);
    this.note = element("small", { className: "note" });
    this.note.setAttribute("role", "status");
    const parts = [line, this.slider];
    if (run) {
      const [low, high] = run.intervals[i], fixed = high <= low;
      const [left, right] = [low, high].map((value) => 100 * fractionAt(p, value));
      const bar = { class: "interval", x: `${left}%`, width: `${Math.max(0.6, right - left)}%`, height: "100%" };
      parts.push(drawing("svg", { class: "mark", "aria-hidden": "true" }, drawing("rect", bar)));
      range.append(element("br"), fixed ? "fixed in the run" : `68 %: ${typed(low, 4)} … ${typed(high, 4)}`);
    }
    this.box = element("div", { className: "parameter" }, ...parts, range, this.note);
    this.slider.addEventListener("input", () => {
      theta[i] = valueAt(p, this.slider.value / 1000);
      this.showField();
      redraw();
    });
    this.field.addEventListener("change", () => {
      const text = this.field.value.trim().replace("−", "-"), value = Number(text);
      if (text === "" || !Number.isFinite(value) || (p.log && value <= 0 && !(value === 0 && p.zero !== null))) {
        this.note.textContent = `“${text}” is not a ${p.log ? "positive " : ""}number`;
        this.field.setAttribute("aria-invalid", "true");
        return;
      }
      theta[i] = value;
      this.show();
      redraw();
    });
    this.show();
  }

  show() {
    this.showField();
    this.slider.value = Math.round(1000 * fractionAt(this.parameter, theta[this.index]));
  }

  showField() {
    const p = this.parameter, value = theta[this.index];
    this.field.value = typed(value);
    this.field.removeAttribute("aria-invalid");
    this.slider.setAttribute("aria-valuetext", `${typed(value)} ${p.unit}`.trim());
    const tiny = 1e-9 * (p.max - p.min), below = value < p.min - tiny && !(value === 0 && p.zero !== null);
    const outside = below || value > p.max + tiny;
    this.note.textContent = outside ? "outside the training range: the emulator extrapolates" : "";
  }
}

const controls = emulator.parameters.map((parameter, i) => new Control(parameter, i));
document.getElementById("parameters").append(...controls.map((control) => control.box));

document.getElementById("reset").addEventListener("click", () => {
  theta = start.slice();
  for (const control of controls) control.show();
  for (const figure of figures) figure.limits = null;
  redraw();
});

/** The parameters as a line of a run file. YAML 1.1 needs a point in a number with an exponent. */
function yaml(key) {
  const pairs = emulator.parameters.map(({ name }, i) => {
    const word = /^(y|n|yes|no|on|off|true|false|null)$/i.test(name) ? `"${name}"` : name;
    return `${word}: ${String(theta[i]).replace(/^(-?\d+)e/, "$1.0e")}`;
  });
  return `${key}: {${pairs.join(", ")}}`;
}

async function copy(key) {
  const text = document.getElementById("yaml"), how = document.getElementById("copied-how");
  document.getElementById("copied").hidden = false;
  text.value = yaml(key);
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    how.textContent = "(copied)";
  } catch {
    how.textContent = document.execCommand("copy") ? "(copied)" : "(select and copy)";
  }
}

for (const key of ["params", "theta"]) {
  document.getElementById(`copy-${key}`).addEventListener("click", () => copy(key));
}

// ---------------------------------------------------------------- figures

const NU21 = 1420.405751768;
const NICE_REDSHIFTS = [5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50];

/** Ascending round numbers within limits, about `n` of them. */
function ticks(low, high, n) {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) || 10);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k <= high / step + 1e-9; k++) found.push(k * step);
  return { found, step, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** Lowest and highest value of arrays; values that are not numbers are ignored. */
function extent(...arrays) {
  let low = Infinity, high = -Infinity;
  for (const array of arrays) {
    for (const value of array) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

const spectra = run ? run.spectra : [];
let spectrum = spectra[0];
const nuLimits = frequencyLimits();

/** As in signal.png: the channels of the data, if there are any. */
function frequencyLimits() {
  const [low, high] = extent(...(spectra.length ? spectra.map((s) => s.frequency) : [emulator.frequency]));
  const margin = 0.03 * (high - low);
  return [low - margin, high + margin];
}

class Figure {
  constructor(name, i) {
    this.name = name;
    this.first = i === 0;
    this.limits = null;
    const known = OUTPUTS.get(name) || {};
    this.fixed = known.limits;
    const title = element("figcaption", {}, known.label ? formula(known.label) : name);
    if (known.unit) title.append(` [${known.unit}]`);
    this.axes = drawing("g", { class: "axes" });
    this.area = drawing("rect", { x: 0, y: 0 });
    const clip = drawing("clipPath", { id: `clip-${i}` }, this.area);
    this.lines = drawing("g", { "clip-path": `url(#clip-${i})` });
    this.paths = {};
    const layers = this.first && run ? ["data", "band95", "band68", "median", "truth", "curve"] : ["curve"];
    for (const layer of layers) this.lines.append((this.paths[layer] = drawing("path", { class: layer })));
    this.svg = drawing("svg", { role: "img", class: this.first ? "main" : "other" }, clip, this.axes, this.lines);
    this.box = element("figure", { id: `figure-${name}` }, title, this.svg);
  }

  /** Draw all after a change of the size or the data. */
  resize() {
    const { width, height } = this.svg.getBoundingClientRect();
    this.inner = { left: 50, right: width - 10, top: this.first ? 24 : 8, bottom: height - 24 };
    const { left, right, top, bottom } = this.inner;
    const size = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
    for (const [key, value] of Object.entries(size)) this.area.setAttribute(key, value);
    this.drawn = null;
  }

  x(nu) {
    const { left, right } = this.inner;
    return left + ((nu - nuLimits[0]) / (nuLimits[1] - nuLimits[0])) * (right - left);
  }

  y(value) {
    const { top, bottom } = this.inner;
    return bottom - ((value - this.limits[0]) / (this.limits[1] - this.limits[0])) * (bottom - top);
  }

  draw(values) {
    this.fit(values);
    if (this.drawn !== this.limits) {
      this.drawAxes();
      if (this.first && run) this.drawRun();
      this.drawn = this.limits;
    }
    this.paths.curve.setAttribute("d", this.line(emulator.frequency, values));
  }

  /** Choose limits that contain everything; keep those of before while they are not far too wide. */
  fit(values) {
    if (this.fixed) {
      this.limits ||= [this.fixed[0] - 0.04, this.fixed[1] + 0.04];
      return;
    }
    const inside = values.filter((_, i) => emulator.frequency[i] >= nuLimits[0] && emulator.frequency[i] <= nuLimits[1]);
    let [low, high] = extent(inside, ...(this.first && run ? this.bounds() : []));
    if (!(low <= high)) [low, high] = this.limits || [-1, 1];
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const old = this.limits;
    if (old && old[0] <= low && old[1] >= high && high - low > 0.4 * (old[1] - old[0])) return;
    const margin = 0.04 * (high - low), { step } = ticks(low, high, 10);
    this.limits = [step * Math.floor((low - margin) / step), step * Math.ceil((high + margin) / step)];
  }

  /** What of the run must be visible: the widest band, and the data but for the outermost of them. */
  bounds() {
    const [low, high] = run.bands[0].limits, found = [low, high];
    if (spectrum) {
      const sorted = spectrum.temperature.slice().sort((a, b) => a - b), n = sorted.length - 1;
      found.push([sorted[Math.floor(0.01 * n)], sorted[Math.ceil(0.99 * n)]]);
    }
    return found;
  }

  drawAxes() {
    const { left, right, top, bottom } = this.inner, parts = [];
    const text = (x, y, anchor, label, name = "tick") =>
      parts.push(drawing("text", { x, y, "text-anchor": anchor, class: name }, label));
    const stroke = (d, name) => parts.push(drawing("path", { d, class: name }));
    const values = ticks(this.limits[0], this.limits[1], Math.max(2, (bottom - top) / 45));
    for (const value of values.found) {
      const y = this.y(value), zero = Math.abs(value) < 1e-9 * values.step;
      stroke(`M${left} ${y}H${right}`, zero ? "zero" : "grid");
      text(left - 6, y + 4, "end", shown(zero ? 0 : value, values.decimals));
    }
    const nus = ticks(nuLimits[0], nuLimits[1], Math.max(2, (right - left) / 60));
    for (const nu of nus.found) {
      stroke(`M${this.x(nu)} ${bottom}v-5`, "frame");
      if (this.x(nu) < right - 62) text(this.x(nu), bottom + 16, "middle", shown(nu, nus.decimals));
    }
    text(right, bottom + 16, "end", "ν [MHz]", "name");
    if (this.first) this.drawRedshifts(stroke, text);
    stroke(`M${left} ${top}H${right}V${bottom}H${left}Z`, "frame");
    this.axes.replaceChildren(...parts);
  }

  drawRedshifts(stroke, text) {
    const { left, right, top } = this.inner;
    let last = right - 46;
    text(right, top - 8, "end", "redshift", "name");
    for (const z of NICE_REDSHIFTS) {
      const x = this.x(NU21 / (1 + z));
      if (x < left || x > right) continue;
      stroke(`M${x} ${top}v5`, "frame");
      // From low redshift to high, x decreases; labels that would overlap are left out.
      if (x > last - 22) continue;
      text(x, top - 8, "middle", String(z));
      last = x;
    }
  }

  drawRun() {
    for (const { percent, limits } of run.bands) {
      const there = this.line(emulator.frequency, limits[0]);
      const back = this.line(emulator.frequency.slice().reverse(), limits[1].slice().reverse());
      this.paths[`band${percent}`].setAttribute("d", `${there}${back.replace("M", "L")}Z`);
    }
    this.paths.median.setAttribute("d", this.line(emulator.frequency, run.median));
    if (!spectrum) return;
    const { frequency, temperature, truth } = spectrum;
    // Points of the width of the line, which is round at its ends.
    const points = frequency.map((nu, i) => `M${this.x(nu).toFixed(1)} ${this.y(temperature[i]).toFixed(1)}h0`);
    this.paths.data.setAttribute("d", points.join(""));
    const order = frequency.map((_, i) => i).sort((a, b) => frequency[a] - frequency[b]);
    const of = (values) => order.map((i) => values[i]);
    this.paths.truth.setAttribute("d", truth ? this.line(of(frequency), of(truth)) : "");
  }

  /** A path through points; empty if a value is not a number. */
  line(nu, values) {
    let path = "";
    for (let i = 0; i < nu.length; i++) {
      if (!Number.isFinite(values[i])) return "";
      path += `${i ? "L" : "M"}${this.x(nu[i]).toFixed(1)} ${this.y(values[i]).toFixed(2)}`;
    }
    return path;
  }
}

const figures = emulator.architecture.histories.map((name, i) => new Figure(name, i));
document.getElementById("figures").append(...figures.map((figure) => figure.box));

// ---------------------------------------------------------------- numbers and text

const numbers = {};

function addNumber(id, label) {
  numbers[id] = element("output", { id });
  document.getElementById("numbers").append(element("div", {}, element("dt", {}, label), element("dd", {}, numbers[id])));
}

addNumber("minimum", "absorption minimum");
for (const name of emulator.architecture.scalars) {
  addNumber(`scalar-${name}`, OUTPUTS.has(name) ? formula(OUTPUTS.get(name).label) : name);
}

function showNumbers({ histories, scalars }) {
  const { signal } = histories;
  let at = 0;
  for (let i = 1; i < signal.length; i++) if (signal[i] < signal[at]) at = i;
  const where = `${shown(emulator.frequency[at], 2)} MHz (z = ${shown(emulator.redshifts[at], 2)})`;
  const text = signal[at] < 0 ? `${shown(signal[at], 2)} mK at ${where}` : "none";
  numbers.minimum.textContent = text;
  for (const [name, value] of Object.entries(scalars)) {
    numbers[`scalar-${name}`].textContent = typed(value, 4).replace("-", "−");
  }
  figures[0].svg.setAttribute("aria-label", `Signal against frequency; absorption minimum: ${text}`);
}

function showTexts() {
  document.getElementById("title").textContent = run ? `${run.name} (${emulator.name})` : emulator.name;
  const error = emulator.mean_percent === null ? "" : `; mean error ${typed(emulator.mean_percent, 2)} %`;
  const teacher = emulator.trained_on ? ` of ${emulator.trained_on}` : "";
  document.getElementById("about").textContent = `Emulator${teacher}: ${emulator.network}${error}`;
  const entries = [["curve", "emulator"]];
  if (run) {
    entries.push(["median", "posterior median"], ["band68", "68 %"], ["band95", "95 %"]);
    if (spectrum) entries.push(["data", spectrum.foreground ? "data − mean foreground" : "data"]);
    if (spectrum && spectrum.truth) entries.push(["truth", "truth"]);
  }
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  for (const [layer, label] of entries) {
    const d = { data: "M12 8h0", band68: "M0 3h24v10h-24z", band95: "M0 3h24v10h-24z" }[layer] || "M0 8H24";
    const sample = drawing("svg", { width: 24, height: 16, "aria-hidden": "true" }, drawing("path", { class: layer, d }));
    legend.append(element("span", {}, sample, ` ${label}`), " ");
  }
  if (spectra.length > 1) {
    const choice = element("select", { id: "spectrum" }, ...spectra.map((s) => element("option", {}, s.name)));
    choice.selectedIndex = spectra.indexOf(spectrum);
    choice.addEventListener("change", () => {
      spectrum = spectra[choice.selectedIndex];
      figures[0].limits = null;
      redraw();
      showTexts();
      document.getElementById("spectrum").focus();
    });
    legend.append(element("label", {}, "spectrum ", choice));
  }
}

// ---------------------------------------------------------------- drawing, at most once per frame

let waiting = false;

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const outputs = network.evaluate(theta);
    for (const figure of figures) figure.draw(outputs.histories[figure.name]);
    showNumbers(outputs);
  });
}

function resize() {
  for (const figure of figures) figure.resize();
  redraw();
}

showTexts();
const observer = new ResizeObserver(resize);
for (const figure of figures) observer.observe(figure.box);
