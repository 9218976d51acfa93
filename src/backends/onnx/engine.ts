/** @file The engine that runs programs on ONNX Runtime, in a thread of its own. */
import { LorikeetError } from "../../errors.ts";
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import type { OnnxProfile } from "../../ir/rules.ts";
import { isFrozen } from "../../ops/leaf.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type {
  AdamWStep,
  Engine,
  PairedProgram,
  Program,
  Tensors,
  WeightSource,
} from "../backend.ts";
import { emitGraph, type WeightLocations } from "./emit.ts";
import { gainsFromPairs, halfOfThreads } from "./pairs.ts";
import { Hosts } from "./hosts.ts";
import { type ChooseStorage, lowerGraph } from "./lower.ts";
import type { OnnxExternalData } from "./proto.ts";
import { expectKind, type ProgramSpec } from "./protocol.ts";
import { QuantizedWeights } from "./quantized-weights.ts";
import type { SessionOptions } from "./session.ts";
import { type BaseDType, chooseStorage } from "./storage.ts";
import { WeightFiles } from "./weight-files.ts";

/**
 * What memory is spent on: `lean` gives it back after each use, which costs time; `packed` copies weights into the layout
 * of the kernels, once for each program, which saves time once it is done.
 */
export type Memory = "fast" | "lean" | "packed";

/** How an ONNX engine is made. */
export interface OnnxEngineOptions {
  readonly weights: WeightSource;
  /** Where programs run; `cpu` by default. */
  readonly provider?: "cpu" | "webgpu";
  /** Threads of one operator; one for each physical core by default. */
  readonly threads?: number;
  /** How the frozen base is kept in memory; computation is f32. */
  readonly baseDtype?: BaseDType;
  /** See `Memory`. */
  readonly memory?: Memory;
  /** Write an ONNX Runtime profile of each program to files that begin so. */
  readonly profilePrefix?: string;
}

/** An engine on onnxruntime-node. Its sessions, trainable parameters and optimizer state live in a worker thread. */
export function createOnnxEngine(options: OnnxEngineOptions): Engine {
  return new OnnxEngine(options);
}

class OnnxEngine implements Engine {
  readonly name: string;
  private readonly hosts: Hosts;
  private readonly files: WeightFiles;
  private readonly coded: QuantizedWeights;
  private readonly session: SessionOptions;
  private readonly storage: ChooseStorage;
  /** Threads of each of two programs at the same time; 0: there are no two. */
  private readonly half: number;
  private programs = 0;

  constructor(options: OnnxEngineOptions) {
    const { provider = "cpu", weights } = options;
    const baseDtype = baseDTypeOf(options);
    this.name = `onnx-${provider}`;
    this.files = new WeightFiles(weights);
    this.coded = new QuantizedWeights(weights);
    this.storage = (roots) => chooseStorage(roots, weights, baseDtype);
    this.hosts = new Hosts();
    this.session = {
      provider,
      threads: options.threads ?? 0,
      weightsFolder: this.files.folder,
      keepsMemory: options.memory !== "lean",
      packsWeights: options.memory === "packed",
      ...(options.profilePrefix !== undefined && { profilePrefix: options.profilePrefix }),
    };
    // what is spent once for each program would be spent twice
    const isPlain = provider === "cpu" && (options.memory ?? "fast") === "fast";
    this.half = isPlain ? halfOfThreads(this.session.threads) : 0;
  }

  async compile(graph: Graph): Promise<Program> {
    const { first } = this.hosts;
    const spec = await this.specOf(lowerGraph(graph, this.profile(), this.storage));
    const program = this.programs++;
    await first.send({ type: "compile", program, spec, options: this.session });
    return {
      run: async (feeds: Tensors) => {
        const response = await first.send({ type: "run", program, feeds: allAlone(feeds) });
        return expectKind(response, "tensors").values;
      },
      dispose: async () => {
        await first.send({ type: "release", program });
      },
    };
  }

  async compilePaired(graph: Graph): Promise<PairedProgram | undefined> {
    if (this.half === 0) return undefined;
    const lowered = lowerGraph(graph, this.profile(), this.storage);
    if (!gainsFromPairs(lowered)) return undefined;
    const spec = await this.specOf(lowered);
    const options = { ...this.session, threads: this.half };
    const paired = await this.hosts.compile(this.programs++, spec, options);
    return {
      run: ([a, b]) => this.hosts.run(paired, [allAlone(a), allAlone(b)]),
      dispose: () => this.hosts.release(paired),
    };
  }

  async get(name: string): Promise<Tensor> {
    await this.hosts.collect();
    return expectKind(await this.hosts.first.send({ type: "get", name }), "tensor").value;
  }

  async set(name: string, value: Tensor): Promise<void> {
    await this.hosts.collect();
    this.hosts.changed(name);
    await this.hosts.first.send({ type: "set", values: { [name]: alone(value) } });
  }

  async applyGradients(update: AdamWStep): Promise<{ gradNorm: number }> {
    await this.hosts.collect();
    this.hosts.changed();
    const { gradNorm } = expectKind(await this.hosts.first.send({ type: "apply", update }), "norm");
    return { gradNorm };
  }

  async clearGradients(): Promise<void> {
    await this.hosts.clear();
  }

  async dispose(): Promise<void> {
    await this.hosts.dispose();
    await this.files.dispose();
  }

  private profile(): OnnxProfile {
    return this.session.provider === "webgpu" ? "webgpu" : "cpu";
  }

  private async specOf(lowered: Graph): Promise<ProgramSpec> {
    return emitGraph(lowered, this.profile(), await this.locate(lowered));
  }

  /** One weight after the other, so that no more than one is in this thread's memory. */
  private async locate(graph: Graph): Promise<WeightLocations> {
    const locations = new Map<string, Uint8Array | OnnxExternalData>();
    for (const { name, dtype } of topological(rootsOf(graph)).filter(isFrozen))
      locations.set(name!, await this.files.locate(name!, dtype, this.coded.compute(name!)));
    return locations;
  }
}

function allAlone(feeds: Tensors): Tensors {
  return Object.fromEntries(Object.entries(feeds).map(([name, value]) => [name, alone(value)]));
}

/** `value` with a buffer of its own: a view would take all of its buffer along to the other thread. */
function alone(value: Tensor): Tensor {
  const { data } = value;
  return data.byteLength === data.buffer.byteLength ? value : { ...value, data: data.slice() };
}

/** @throws LorikeetError `unsupported-base-dtype` */
function baseDTypeOf({ provider, baseDtype = "auto" }: OnnxEngineOptions): BaseDType {
  if (provider !== "webgpu") return baseDtype;
  if (baseDtype === "auto" || baseDtype === "f32") return "f32";
  throw new LorikeetError(
    "unsupported-base-dtype",
    `Expected the base in f32 on WebGPU, got ${baseDtype}: ONNX Runtime does not decode it there`,
    { hint: "leave out --base-dtype, or use --device cpu or cuda" },
  );
}
