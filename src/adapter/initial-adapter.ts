import { LorikeetError, nearest } from "../errors.ts";
import type { LoraSite } from "../passes/lora.ts";
import { convert, toFloat32 } from "../tensor/convert.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { type Adapter, PEFT_PREFIX, peftKey } from "./adapter.ts";
import { type AdapterBase, tiedEmbedding, tokenEmbedding } from "./adapter-base.ts";
import { completeConfig } from "./complete-config.ts";
import { changesBase, initialPart, readsWeight } from "./init/initial-part.ts";
import type { LoraConfig } from "./lora-config.ts";
import { matchesModule, resolveTargets } from "./targets.ts";
import { tiedCopies } from "./tied-copies.ts";

/** How the first adapter is made. */
export interface InitialOptions {
  /** Selects all random numbers. */
  readonly seed: number;
  /** A (r, in) of single modules, where it was found elsewhere (EVA). */
  readonly given?: ReadonlyMap<string, Tensor>;
}

/**
 * The adapter that training starts from, with the keys, shapes and configuration that PEFT's has: A and B of each
 * target, whole modules and biases as they are in the base, rows of tokens. All f32.
 * @throws LorikeetError `lora-config`, `lora-targets`, `unsupported-init`, `modules-to-save`, `token-indices`
 */
export async function initialAdapter(
  config: LoraConfig,
  base: AdapterBase,
  options: InitialOptions,
): Promise<Adapter> {
  const complete = completeConfig(config, base);
  const sites = resolveTargets(complete, base.layers, base.family);
  const start = await startTensors(complete, base, sites, options);
  const tensors = new Map([
    ...start,
    ...(await wholeWeights(complete, base, sites)),
    ...(await tokenRows(complete, base)),
  ]);
  for (const [key, value] of tiedCopies(complete, tensors, base)) tensors.set(key, value);
  return { config: complete, tensors, ...(changesBase(complete.init) && { start }) };
}

/** Beyond so many times the larger side of the weight a rank is a slip of the pen; up to it, it is warned of. */
const MOST = 4;

/** Made before anything is estimated, such an adapter would fill the memory. @throws LorikeetError `lora-config` */
function refuseRank(
  { module, inFeatures, outFeatures, kernel }: AdapterBase["layers"][number],
  rank: number,
): void {
  const [inputs, outputs] = [inFeatures * sizeOf(kernel), outFeatures];
  if (rank <= MOST * Math.max(inputs, outputs)) return;
  throw new LorikeetError(
    "lora-config",
    `Expected a rank that fits ${module}, whose weight is ${outputs} × ${inputs}, got ${rank}`,
    { hint: `More than ${Math.min(inputs, outputs)} is of no use there; 8 to 64 is usual.` },
  );
}

async function startTensors(
  config: LoraConfig,
  { layers, weights }: AdapterBase,
  sites: ReadonlyMap<string, LoraSite>,
  { seed, given }: InitialOptions,
): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const candidate of layers) {
    const site = sites.get(candidate.module);
    if (!site) continue;
    refuseRank(candidate, site.rank);
    const nameOf = (part: string): string => peftKey(candidate.module, part);
    const a = given?.get(candidate.module);
    const weight = readsWeight(config) ? await weights.read(candidate.weight) : undefined;
    const target = { candidate, site, seed, nameOf, ...(weight && { weight }), ...(a && { a }) };
    for (const [part, value] of Object.entries(initialPart(config, target).tensors))
      tensors.set(nameOf(part), value);
  }
  return tensors;
}

/** modules_to_save and biases, by key. */
async function wholeWeights(
  config: LoraConfig,
  { uses, weights }: AdapterBase,
  sites: ReadonlyMap<string, LoraSite>,
): Promise<Map<string, Tensor>> {
  const { modulesToSave = [] } = config;
  checkSaved(config, uses);
  const tensors = new Map<string, Tensor>();
  for (const [use, stored] of uses) {
    const isSaved = isIn(modulesToSave, use);
    const module = use.replace(/\.bias$/, "");
    if (!isSaved && !(use.endsWith(".bias") && trainsBias(config, sites.has(module)))) continue;
    const key = sites.has(module) ? `${module}.base_layer.bias` : use;
    tensors.set(PEFT_PREFIX + key, convert(await weights.read(stored), "f32"));
  }
  return tensors;
}

function trainsBias({ bias }: LoraConfig, isAdapted: boolean): boolean {
  return bias === "all" || (bias === "lora_only" && isAdapted);
}

/** PEFT's match of modules_to_save, of a weight's module or one that it is in: by the end of the name, dots aside. */
function isIn(saved: readonly string[], weight: string): boolean {
  const path = weight.split(".").slice(0, -1);
  const modules = path.map((_, i) => path.slice(0, i + 1).join("."));
  return modules.some((module) => saved.some((name) => module.endsWith(name)));
}

/** @throws LorikeetError `modules-to-save` naming what matches nothing */
function checkSaved({ modulesToSave = [], taskType }: LoraConfig, uses: AdapterBase["uses"]): void {
  const names = [...uses.keys()];
  const missed = modulesToSave.filter((saved) => !names.some((name) => isIn([saved], name)));
  // PEFT itself adds names of heads that a model has one of at most
  const unknown = taskType === "SEQ_CLS" ? missed.filter((name) => name !== "score" && name !== "classifier") : missed; // prettier-ignore
  if (unknown.length === 0) return;
  const endings = names.map((name) => name.split(".").at(-2) ?? "");
  const list = unknown.map((name) => {
    const [near] = nearest(name, endings, 1);
    return `"${name}"${near === undefined ? "" : ` (did you mean "${near}"?)`}`;
  });
  throw new LorikeetError(
    "modules-to-save",
    `Expected modules_to_save to name modules of the model; nothing matches ${list.join(", ")}`,
    { hint: "lorikeet inspect MODEL lists its modules." },
  );
}

/** Rows of embeddings, by key. A head that shares the embedding's matrix shares its rows. */
async function tokenRows(config: LoraConfig, base: AdapterBase): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const [module, indices] of rowsByModule(config, base)) {
    const matrix = await base.weights.read(base.uses.get(`${module}.weight`)!);
    const [rows, width] = matrix.shape as [number, number];
    const outside = indices.filter((id) => !(Number.isInteger(id) && id >= 0 && id < rows));
    if (outside.length > 0 || indices.length === 0)
      throw new LorikeetError(
        "token-indices",
        `Expected trainable_token_indices of ${module} from 0 to ${rows - 1}, got ${outside.join(", ") || "none"}`,
        { hint: "They are token ids of the model's vocabulary." },
      );
    const values = toFloat32(matrix);
    const data = new Float32Array(indices.length * width);
    for (const [i, id] of indices.entries())
      data.set(values.subarray(id * width, (id + 1) * width), i * width);
    const key = peftKey(module, "token_adapter.trainable_tokens_delta");
    tensors.set(key, tensor("f32", [indices.length, width], data));
  }
  return tensors;
}

/** @throws LorikeetError `token-indices` for modules that are none, train in full, or disagree though tied */
function rowsByModule(config: LoraConfig, base: AdapterBase): Map<string, readonly number[]> {
  const { trainableTokenIndices: wanted, modulesToSave = [] } = config;
  if (wanted === undefined) return new Map();
  const first = tokenEmbedding(base) ?? "embed_tokens";
  const named = Array.isArray(wanted) ? { [first]: wanted as readonly number[] } : wanted;
  const found = new Map<string, readonly number[]>();
  for (const [name, indices] of Object.entries(named as Record<string, readonly number[]>)) {
    const layer = base.layers.find(({ module }) => matchesModule([name], module));
    if (!layer) throw tokenFault(`"${name}" is no embedding or head of the model`);
    if (isIn(modulesToSave, `${layer.module}.weight`))
      throw tokenFault(`${layer.module} is in modules_to_save too, which trains all of its rows`);
    found.set(layer.module, indices);
  }
  return sharedRows(config, base, found);
}

function sharedRows(
  { ensureWeightTying }: LoraConfig,
  base: AdapterBase,
  found: Map<string, readonly number[]>,
): Map<string, readonly number[]> {
  const embedding = tiedEmbedding(base);
  const [own, heads] = [found.get(embedding ?? ""), found.get(base.family.head)];
  if (!own || !heads) return found;
  if (own.join() === heads.join()) found.delete(base.family.head);
  else if (ensureWeightTying)
    throw tokenFault(`embedding and head stay tied, but train rows ${own.join(", ")} and ${heads.join(", ")}`); // prettier-ignore
  return found;
}

function tokenFault(reason: string): LorikeetError {
  return new LorikeetError("token-indices", `Expected other trainable_token_indices: ${reason}`, {
    hint: "Name an embedding with its rows: {embed_tokens: [32000, 32001]}.",
  });
}
