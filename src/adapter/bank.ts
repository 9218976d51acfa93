import { LorikeetError, nearest } from "../errors.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { adapterModules, pairOf } from "./adapter-modules.ts";
import { beyondLora } from "./lora-faults.ts";
import { factorNames, partShapes } from "./parts.ts";
import { siteOf } from "./targets.ts";

/** Which adapters act, and how much: factors by name. {} is the base alone. */
export type ActiveAdapters = Readonly<Record<string, number>>;

/** The columns of a bank that an adapter owns, and its modules. */
interface Range {
  readonly start: number;
  readonly rank: number;
  readonly modules: readonly string[];
}

/** A module of a bank: A (rank, in) and B (out, rank), the columns of all adapters side by side. */
interface BankModule {
  readonly names: { readonly a: string; readonly b: string };
  readonly a: Tensor;
  readonly b: Tensor;
}

/** What an adapter has for a module, row-major, and the scale of B. */
interface BankPart {
  readonly rank: number;
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly scale: number;
}

/**
 * Several adapters of one base in the room of one: each owns a range of the bank's rank, its scale inside its B, and a
 * row of a batch picks ranges by a factor for each column. What adapters are loaded never changes a graph.
 */
export class AdapterBank {
  readonly rank: number;
  private readonly modules = new Map<string, BankModule>();
  private readonly ranges = new Map<string, Range>();

  /** @param layers the layers that adapters of the bank may be on @throws LorikeetError `lora-config` */
  constructor(rank: number, layers: readonly LoraCandidate[]) {
    if (!Number.isInteger(rank) || rank < 1)
      throw new LorikeetError(
        "lora-config",
        `Expected the rank of a bank to be a positive whole number, got ${rank}`,
        { hint: "It is the sum of the ranks that are loaded at a time." },
      );
    this.rank = rank;
    for (const layer of layers) {
      const names = factorNames(layer, bankSite(layer.module, rank));
      const shapes = partShapes(layer, bankSite(layer.module, rank));
      const [a, b] = [names.a, names.b].map((part) => tensor("f32", shapes[part]!)) as [
        Tensor,
        Tensor,
      ];
      this.modules.set(layer.module, { names, a, b });
    }
  }

  /** Names of the adapters, in the order of loading. */
  get names(): string[] {
    return [...this.ranges.keys()];
  }

  /** How the bank goes into a graph. */
  get sites(): Map<string, LoraSite> {
    return new Map([...this.modules.keys()].map((module) => [module, bankSite(module, this.rank)]));
  }

  /** Every tensor of the bank by graph name. */
  get tensors(): Map<string, Tensor> {
    return this.tensorsOf(this.modules.keys());
  }

  /**
   * Puts `adapter` into free columns, or into those of the adapter that it replaces.
   * @returns the tensors of the bank that are different now, by graph name
   * @throws LorikeetError `bank-adapter` for what does not fit into a bank, `bank-full`, `adapter-name` for a name in use
   */
  add(
    name: string,
    adapter: Adapter,
    { replace = false }: { replace?: boolean } = {},
  ): Map<string, Tensor> {
    const own = this.partsOf(name, adapter);
    const before = this.ranges.get(name);
    if (before && !replace) throw nameError(`a new name`, name, this.names);
    if (!before && replace) throw nameError(`a loaded adapter`, name, this.names);
    const rank = Math.max(0, ...[...own.values()].map((part) => part.rank));
    const start = this.freeStart(name, rank);
    this.ranges.delete(name);
    this.ranges.set(name, { start, rank, modules: [...own.keys()] });
    if (before) this.clearLeftovers(before, start, own);
    for (const [module, part] of own) this.write(module, start, part);
    return this.tensorsOf(new Set([...own.keys(), ...(before?.modules ?? [])]));
  }

  /** Clears what an adapter had in `before` and `own`, from `start` on, will not overwrite. */
  private clearLeftovers(before: Range, start: number, own: ReadonlyMap<string, BankPart>): void {
    for (const module of before.modules)
      if (before.start !== start || before.rank !== own.get(module)?.rank)
        this.clear(module, before);
  }

  /** Frees the columns of an adapter. @returns the tensors that are different now @throws LorikeetError `adapter-name` */
  delete(name: string): Map<string, Tensor> {
    const range = this.rangeOf(name);
    this.ranges.delete(name);
    for (const module of range.modules) this.clear(module, range);
    return this.tensorsOf(range.modules);
  }

  /** Gives an adapter another name. @throws LorikeetError `adapter-name` */
  rename(from: string, to: string): void {
    const range = this.rangeOf(from);
    if (this.ranges.has(to)) throw nameError("a new name", to, this.names);
    this.ranges.delete(from);
    this.ranges.set(to, range);
  }

  /** Factors of the bank's columns for each row of a batch, f32 (rows, rank). @throws LorikeetError `adapter-name` */
  scales(rows: readonly ActiveAdapters[]): Tensor {
    const data = new Float32Array(rows.length * this.rank);
    for (const [row, active] of rows.entries())
      for (const [name, factor] of Object.entries(active)) {
        const { start, rank } = this.rangeOf(name);
        if (!Number.isFinite(factor))
          throw new LorikeetError(
            "adapter-factor",
            `Expected a finite number as the factor of adapter "${name}", got ${factor}`,
            { hint: "1 is the adapter as it was trained, 0 leaves it out." },
          );
        data.fill(factor, row * this.rank + start, row * this.rank + start + rank);
      }
    return tensor("f32", [rows.length, this.rank], data);
  }

  private rangeOf(name: string): Range {
    const range = this.ranges.get(name);
    if (!range) throw nameError("a loaded adapter", name, this.names);
    return range;
  }

  private tensorsOf(modules: Iterable<string>): Map<string, Tensor> {
    const changed = new Map<string, Tensor>();
    for (const module of modules) {
      const { names, a, b } = this.modules.get(module)!;
      changed.set(peftKey(module, names.a), a).set(peftKey(module, names.b), b);
    }
    return changed;
  }

  /** The first gap that is large enough, the own columns of `name` being free. */
  private freeStart(name: string, rank: number): number {
    const taken = [...this.ranges].filter(([other]) => other !== name).map(([, range]) => range);
    taken.sort((a, b) => a.start - b.start);
    let start = 0;
    for (const range of taken) {
      if (range.start - start >= rank) break;
      start = range.start + range.rank;
    }
    if (start + rank <= this.rank) return start;
    throw new LorikeetError(
      "bank-full",
      `Expected ${rank} free columns next to each other for adapter ${name}, got a bank of rank ${this.rank} with ${this.names.join(", ")} in it`,
      { hint: "Delete an adapter, or open the bank with a larger rank." },
    );
  }

  /** A and B of each module of `adapter`, and the scale that goes into B. */
  private partsOf(name: string, adapter: Adapter): Map<string, BankPart> {
    const { lora, whole, rows } = adapterModules(adapter);
    const faults = [
      ...beyondLora(adapter.config),
      whole.size > 0 ? `trained base weights (${[...whole.keys()][0]!} …)` : "",
      rows.size > 0 ? "trainable tokens" : "",
      ...[...lora.keys()]
        .filter((module) => !this.modules.has(module))
        .map((module) => `the layer ${module}, which the bank was not opened for`),
    ].filter((fault) => fault !== "");
    if (faults.length > 0)
      throw new LorikeetError(
        "bank-adapter",
        `Expected plain LoRA on layers of the bank, got ${faults.join(", ")} in adapter ${name}`,
        {
          hint: "Use it alone (model.withAdapter), merge it into the base, or open the bank with its target modules.",
        },
      );
    const parts = new Map<string, BankPart>();
    for (const [module, tensors] of lora) {
      const { a, b } = pairOf(tensors);
      this.checkShapes(name, module, { a, b });
      const { scale } = siteOf(adapter.config, module);
      const [down, up] = [toFloat32(a), toFloat32(b)];
      if (!isFinite(down, 1) || !isFinite(up, scale))
        throw new LorikeetError(
          "not-finite",
          `Expected finite values, got NaN or infinity in adapter ${name}, ${module}`,
          { hint: "It would spoil every row of a batch; train it again." },
        );
      parts.set(module, { rank: a.shape[0]!, a: down, b: up, scale });
    }
    return parts;
  }

  private checkShapes(name: string, module: string, { a, b }: { a: Tensor; b: Tensor }): void {
    const own = this.modules.get(module)!;
    if (a.shape.slice(1).join() === own.a.shape.slice(1).join() && b.shape[0] === own.b.shape[0])
      return;
    throw new LorikeetError(
      "adapter-mismatch",
      `Expected A (r, ${own.a.shape.slice(1).join(", ")}) and B (${own.b.shape[0]!}, r) on ${module}, got [${a.shape.join(", ")}] and [${b.shape.join(", ")}] in adapter ${name}`,
      { hint: "Use the base model that the adapter was trained on." },
    );
  }

  /** Writes A's rows and B's columns from `start` on. */
  private write(module: string, start: number, { rank, a: down, b: up, scale }: BankPart): void {
    const { a, b } = this.modules.get(module)!;
    (a.data as Float32Array).set(down, (start * a.data.length) / this.rank);
    const to = b.data as Float32Array;
    // rows are a few elements long: cheaper one by one than as views
    for (let i = 0, at = start; i < up.length; i += rank, at += this.rank)
      for (let r = 0; r < rank; r++) to[at + r] = up[i + r]! * scale;
  }

  private clear(module: string, { start, rank }: Range): void {
    const { a, b } = this.modules.get(module)!;
    const inputs = a.data.length / this.rank;
    (a.data as Float32Array).fill(0, start * inputs, (start + rank) * inputs);
    for (let at = start; at < b.data.length; at += this.rank)
      for (let r = 0; r < rank; r++) b.data[at + r] = 0;
  }
}

/** Whether all values, times `scale`, are finite float32 numbers: then their products with zero are zero. */
function isFinite(values: Float32Array, scale: number): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.fround(values[i]! * scale) * 0;
  return sum === 0;
}

function bankSite(module: string, rank: number): LoraSite {
  return { module, rank, scale: 1, dropout: 0, useDora: false, loraBias: false };
}

function nameError(wanted: string, name: string, names: readonly string[]): LorikeetError {
  const near = nearest(name, names, 1)[0];
  return new LorikeetError(
    "adapter-name",
    `Expected ${wanted}, got "${name}"; loaded are: ${names.join(", ") || "none"}`,
    {
      hint:
        near === undefined || near === name
          ? "List them with bank.names."
          : `Did you mean "${near}"?`,
    },
  );
}
