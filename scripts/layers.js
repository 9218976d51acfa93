/** @file The one table of layers: what each folder of src may import. Read by dependency-cruiser and ESLint. */

/** Direct imports of each layer; what those import is allowed as well. */
const table = {
  errors: [],
  tensor: ["errors"],
  ir: ["tensor"],
  ops: ["ir"],
  passes: ["ops"],
  formats: ["tensor"],
  data: ["formats"],
  models: ["ops", "formats"],
  "backends/backend": ["ir"],
  "backends/kept-programs": ["backends/backend"],
  "backends/caches": ["ir"],
  "backends/reference": ["ops", "passes", "backends/backend", "backends/caches"],
  "backends/onnx": ["passes", "formats", "backends/backend", "backends/caches"],
  "backends/cuda": ["passes", "backends/backend", "backends/caches"],
  adapter: ["passes", "formats", "backends/backend"],
  diffusion: ["models", "data", "adapter", "backends/backend"],
  layers: ["adapter", "backends/reference"],
  train: ["models", "data", "adapter", "diffusion", "backends/kept-programs"],
  generate: ["models", "data", "adapter", "backends/kept-programs"],
  host: ["formats", "train"],
  api: ["train", "generate", "host", "backends/reference", "backends/onnx", "backends/cuda"],
  cli: "everything",
  index: "everything",
};

/** Layers that also run in a browser: no `node:*`, no process, no console. */
export const portable = [
  "errors",
  "tensor",
  "ir",
  "ops",
  "passes",
  "formats",
  "data",
  "models",
  "adapter",
  "diffusion",
  "layers",
  "train",
  "generate",
];

export const layers = Object.keys(table);

/** Regular expression source for the files of the layers `names`. */
export function filesOf(names) {
  return `^src/(?:${names.map((name) => `${name}(?:/|[.]ts$)`).join("|")})`;
}

/** The layers that `layer` may import, itself included. */
export function allowedFrom(layer) {
  const allowed = new Set([layer]);
  for (const name of allowed) {
    if (table[name] === "everything") return layers;
    for (const next of table[name]) allowed.add(next);
  }
  return [...allowed];
}
