import { initialPart } from "../adapter/init/initial-part.ts";
import { type LoraUpdate, mergeWeight } from "../adapter/merge-steps.ts";
import { factorNames, isTransposed } from "../adapter/parts.ts";
import { interpret } from "../backends/reference/interpret.ts";
import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { input, parameter } from "../ops/leaf.ts";
import { insertLora } from "../passes/lora.ts";
import { convert } from "../tensor/convert.ts";
import { Random } from "../tensor/random.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import {
  layerAdapter,
  type LayerAdapter,
  type LayerOptions,
  type LayerShape,
  MODULE,
} from "./layer-options.ts";

/** What a kind of layer computes. */
export interface LayerKind {
  readonly shape: LayerShape;
  readonly weightShape: Shape;
  /** The layer's result on `x`, without an adapter. @throws LorikeetError `shape` when x does not fit */
  readonly build: (x: Node, weight: Node, bias: Node | undefined) => Node;
  /** The weight is drawn from N(0, 1) instead of U(±1/√in). */
  readonly isNormal?: boolean;
  /** x holds whole numbers. */
  readonly takesIds?: boolean;
}

/** A frozen layer and its adapter, in memory; arithmetic is float64 on the CPU. */
export class LoraLayer {
  private readonly kind: LayerKind;
  private readonly adapter: LayerAdapter;
  private readonly options: LayerOptions;
  private readonly parameters = new Map<string, Tensor>();
  private weight: Tensor;
  private bias: Tensor | undefined;
  /** The weight from before merging. */
  private original: Tensor | undefined;
  private isTraining = true;
  private runs = 0;

  constructor(kind: LayerKind, options: LayerOptions) {
    this.kind = kind;
    this.options = options;
    this.adapter = layerAdapter(kind.shape, options);
    this.weight = this.drawn("weight", kind.weightShape);
    this.bias = options.bias === false ? undefined : this.drawn("bias", [kind.shape.outFeatures]);
    this.initialise();
  }

  /** Whether the adapter is in the weight. */
  get isMerged(): boolean {
    return this.original !== undefined;
  }

  /**
   * The layer on x; f32. In training mode with dropout, each call drops other elements.
   * @throws LorikeetError `shape`, `embedding-id` for an id without a row
   */
  forward(x: Tensor): Tensor {
    const { node, feeds } = this.graph(x);
    const bind = { ...feeds, x, ...(this.seeds && { dropout_seed: this.nextSeed() }) };
    const [value] = interpret([node], (name) => (bind as Record<string, Tensor>)[name]!);
    return convert(tensor("f64", value!.shape, value!.data), "f32");
  }

  /** Training mode: dropout acts. The mode of a new layer. */
  train(): this {
    this.isTraining = true;
    return this;
  }

  /** Evaluation mode: nothing is random. */
  eval(): this {
    this.isTraining = false;
    return this;
  }

  /** Puts the adapter into the weight. @throws LorikeetError `already-merged`, `cannot-merge` (convolutions in groups) */
  merge(): this {
    this.refuseMerged();
    const merged = this.mergedWeight();
    this.original = this.weight;
    this.weight = merged;
    return this;
  }

  /** Restores the weight from before merging, bit for bit. @throws LorikeetError `not-merged` */
  unmerge(): this {
    if (!this.original)
      throw new LorikeetError(
        "not-merged",
        "Expected a merged layer to unmerge, got one that is not",
        {
          hint: "Call merge() first.",
        },
      );
    this.weight = this.original;
    this.original = undefined;
    return this;
  }

  /** The weight with the adapter in it, f32; the layer stays as it is. @throws LorikeetError `cannot-merge` */
  mergedWeight(): Tensor {
    if (this.isMerged || this.adapter.site.rank === 0) return this.weight;
    if (this.kind.shape.groups > 1)
      throw new LorikeetError(
        "cannot-merge",
        `Expected a convolution in one group to merge, got ${this.kind.shape.groups}: A sees all channels, the weight those of its group`,
        { hint: "Keep the adapter apart." },
      );
    return mergeWeight(this.weight, [{ kind: "lora", update: this.update() }]);
  }

  /** The adapter's tensors by name (`lora_A.weight` …), as they stand: writing into them changes the layer. */
  trainableParameters(): ReadonlyMap<string, Tensor> {
    return this.parameters;
  }

  /** The frozen weight, and bias if there is one. */
  base(): { weight: Tensor; bias: Tensor | undefined } {
    return { weight: this.weight, bias: this.bias };
  }

  /**
   * Sets the frozen weight and bias (kept where left out) and starts the adapter anew: some initialisations, and DoRA,
   * depend on the weight. Base-changing ones (pissa, olora) subtract what the adapter starts with.
   * @throws LorikeetError `shape`, `already-merged`, `layer-options` for a bias that the layer has no place for
   */
  loadBase(weight: Tensor, bias?: Tensor): this {
    this.refuseMerged();
    if (bias && this.options.bias === false)
      throw new LorikeetError("layer-options", "Expected no bias for a layer with bias: false", {
        hint: "Leave the bias out, or make the layer with one.",
      });
    const wanted = { weight: this.kind.weightShape, bias: [this.kind.shape.outFeatures] };
    for (const [name, value] of Object.entries({ weight, ...(bias && { bias }) }))
      if (!sameShape(value.shape, wanted[name as "weight"]))
        throw new LorikeetError(
          "shape",
          `Expected a ${name} of shape ${formatShape(wanted[name as "weight"])}, got ${formatShape(value.shape)}`,
        );
    this.weight = convert(weight, "f32");
    if (bias) this.bias = convert(bias, "f32");
    this.initialise();
    return this;
  }

  /**
   * The layer as a graph on the input `x`, with the input `dropout_seed` where dropout acts; and what its leaves stand
   * for. @throws LorikeetError `shape`, `embedding-id`
   */
  graph(values: Tensor): { node: Node; feeds: Record<string, Tensor> } {
    if (this.kind.takesIds) this.checkIds(values);
    const x = input("x", values.shape, this.kind.takesIds ? "i64" : "f32");
    const bias = this.bias && parameter(`${MODULE}.bias`, this.bias.shape);
    const plain = this.kind.build(x, parameter(`${MODULE}.weight`, this.weight.shape), bias);
    const { site } = this.adapter;
    const sites = new Map(site.rank > 0 && !this.isMerged ? [[MODULE, site] as const] : []);
    const seed = this.seeds && { seed: input("dropout_seed", [], "i64") };
    const [node] = insertLora([plain], sites, { nameOf: (_, part) => part, ...seed });
    return {
      node: node!,
      feeds: {
        ...Object.fromEntries(this.parameters),
        [`${MODULE}.weight`]: this.weight,
        ...(this.bias && { [`${MODULE}.bias`]: this.bias }),
      },
    };
  }

  /** The seed of the next run's dropout. */
  nextSeed(): Tensor {
    const word = new Random(this.options.seed ?? 0).fork(`dropout ${this.runs++}`).word();
    return tensor("i64", [], BigInt64Array.of(BigInt(word)));
  }

  /** Whether the graph has dropout in it. */
  get seeds(): boolean {
    return this.isTraining && !this.isMerged && this.adapter.site.dropout > 0;
  }

  private initialise(): void {
    const { candidate, site, config } = this.adapter;
    if (site.rank === 0) return;
    const target = { candidate, site, weight: this.weight, seed: this.options.seed ?? 0 };
    const { tensors, base } = initialPart(config, { ...target, nameOf: (part) => part });
    for (const [name, value] of Object.entries(tensors)) this.parameters.set(name, value);
    if (base) this.weight = base;
  }

  private update(): LoraUpdate {
    const { candidate, site } = this.adapter;
    const names = factorNames(candidate, site);
    const magnitude = this.parameters.get("lora_magnitude_vector");
    return {
      a: this.parameters.get(names.a)!,
      b: this.parameters.get(names.b)!,
      scale: site.scale,
      isTransposed: isTransposed(candidate),
      ...(magnitude && { magnitude }),
    };
  }

  private checkIds({ data }: Tensor): void {
    const rows = this.kind.shape.inFeatures;
    for (const id of data)
      if (!Number.isInteger(Number(id)) || id < 0 || id >= rows)
        throw new LorikeetError(
          "embedding-id",
          `Expected whole numbers from 0 to ${rows - 1}, got ${id}`,
          { hint: "Make the embedding larger, or look at what made the ids." },
        );
  }

  private refuseMerged(): void {
    if (this.isMerged)
      throw new LorikeetError(
        "already-merged",
        "Expected a layer that is not merged, got a merged one",
        {
          hint: "Call unmerge() first.",
        },
      );
  }

  /** First values as PyTorch's layers have them: uniform in ±1/√in, or normal. */
  private drawn(name: string, shape: Shape): Tensor {
    const random = new Random(this.options.seed ?? 0).fork(name);
    const bound = 1 / Math.sqrt(sizeOf(this.kind.weightShape.slice(1)));
    const draw = this.kind.isNormal
      ? (): number => random.normal()
      : (): number => bound * (2 * random.uniform() - 1);
    return tensor("f32", shape, Float32Array.from({ length: sizeOf(shape) }, draw));
  }
}
