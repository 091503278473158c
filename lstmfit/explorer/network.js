// The forward pass of lstmfit/emulator/numpy_engine.py: physical parameters in, physical outputs out.
"use strict";

/** Values of an array that Python wrote as {type: "f2" | "f4" | "f8", base64: little-endian bytes}. */
function decodeArray({ type, base64 }) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  if (type === "f8") return new Float64Array(bytes.buffer);
  if (type === "f4") return new Float32Array(bytes.buffer);
  return Float32Array.from(new Uint16Array(bytes.buffer), fromHalf);
}

/** The number whose IEEE half precision has these 16 bits; the weights of an emulator are finite. */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/** acc[j] += sum_i x[i] w[i, j]. Four rows at a time take half of the time. */
function addProduct(acc, x, w) {
  const n = x.length, m = acc.length;
  let i = 0;
  for (; i + 3 < n; i += 4) {
    const a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3];
    const p = i * m, q = p + m, r = q + m, s = r + m;
    for (let j = 0; j < m; j++) acc[j] += a * w[p + j] + b * w[q + j] + c * w[r + j] + d * w[s + j];
  }
  for (; i < n; i++) {
    const a = x[i], p = i * m;
    for (let j = 0; j < m; j++) acc[j] += a * w[p + j];
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

class Network {
  /** `emulator` is the block of that name in the data of the page. */
  constructor(emulator) {
    this.sizes = emulator.architecture;
    this.parameters = emulator.parameters;
    this.weights = {};
    for (const [name, array] of Object.entries(emulator.weights)) this.weights[name] = decodeArray(array);
    this.scaling = {};
    for (const [name, array] of Object.entries(emulator.scaling)) this.scaling[name] = decodeArray(array);
  }

  /** Scaled inputs; NaN where the logarithm of a value does not exist. */
  inputs(theta) {
    const { low, high } = this.scaling;
    return Float64Array.from(this.parameters, (parameter, i) => {
      let value = theta[i];
      if (parameter.zero !== null && value === 0) value = parameter.zero;
      if (parameter.log) value = value > 0 ? Math.log10(value) : NaN;
      return (2 * (value - low[i])) / (high[i] - low[i]) - 1;
    });
  }

  /**
   * All histories, by name, on the ascending redshifts of the emulator, and all scalars, by name.
   *
   * Tables, which follow the scalars, are left out.
   */
  evaluate(theta) {
    const { units: u, layers, steps, patch, encoder, blocks, n_channels, outputs_per_step } = this.sizes;
    const w = this.weights, { offset, scale, scalar_offset, scalar_scale } = this.scaling;
    let x = this.inputs(theta);
    for (let i = 0; i < encoder.length; i++) x = this.affine(`encoder_${i}`, x).map(Math.tanh);
    for (let i = 0; i < blocks; i++) {
      const gates = this.affine(`block_${i}`, x), n = x.length;
      x = x.map((value, j) => value + Math.tanh(gates[j]) * sigmoid(gates[n + j]));
    }
    const drive = layers ? this.affine("drive", x) : null;
    const h = [], c = [];
    for (let layer = 0; layer < layers; layer++) {
      const start = layer * 6 * u;
      h.push(drive.slice(start + 4 * u, start + 5 * u));
      c.push(drive.slice(start + 5 * u, start + 6 * u));
    }
    const top = layers ? h[layers - 1] : x;
    const names = this.sizes.histories, histories = {};
    for (const name of names) histories[name] = new Float64Array(n_channels);
    const gates = new Float64Array(4 * u), out = new Float64Array(outputs_per_step);
    for (let step = 0; step < steps; step++) {
      for (let layer = 0; layer < layers; layer++) {
        const bias = w[`step_bias_${layer}`], hidden = h[layer], cell = c[layer];
        for (let j = 0; j < 4 * u; j++) gates[j] = drive[layer * 6 * u + j] + bias[step * 4 * u + j];
        addProduct(gates, hidden, w[`recurrent_${layer}`]);
        if (layer) addProduct(gates, h[layer - 1], w[`input_${layer}`]);
        // Input, forget, candidate, output.
        for (let j = 0; j < u; j++) {
          cell[j] = sigmoid(gates[u + j]) * cell[j] + sigmoid(gates[j]) * Math.tanh(gates[2 * u + j]);
          hidden[j] = sigmoid(gates[3 * u + j]) * Math.tanh(cell[j]);
        }
      }
      for (let j = 0; j < outputs_per_step; j++) out[j] = w.output_bias[step * outputs_per_step + j];
      addProduct(out, top, w.output_kernel);
      // The recurrence runs from high redshift to low; the output is in ascending redshift.
      names.forEach((name, i) => {
        for (let j = 0; j < patch; j++) {
          const channel = n_channels - 1 - step * patch - j;
          if (channel >= 0) {
            histories[name][channel] = out[i * patch + j] * scale[i] + offset[i * n_channels + channel];
          }
        }
      });
    }
    const scalars = {};
    if (this.sizes.scalars.length) {
      const values = this.affine("scalar", top);
      this.sizes.scalars.forEach((name, i) => {
        scalars[name] = values[i] * scalar_scale[i] + scalar_offset[i];
      });
    }
    return { histories, scalars };
  }

  affine(name, x) {
    const out = Float64Array.from(this.weights[`${name}_bias`]);
    addProduct(out, x, this.weights[`${name}_kernel`]);
    return out;
  }
}
