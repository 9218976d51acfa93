/** @file The engine that runs programs on ONNX Runtime, in a thread of its own. */
import { LorikeetError } from "../../errors.ts";
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import { isFrozen } from "../../ops/leaf.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AdamWStep, Engine, Program, Tensors, WeightSource } from "../backend.ts";
import { emitGraph, type WeightLocations } from "./emit.ts";
import { type ChooseStorage, lowerGraph } from "./lower.ts";
import type { OnnxExternalData } from "./proto.ts";
import type { Response } from "./protocol.ts";
import { QuantizedWeights } from "./quantized-weights.ts";
import type { SessionOptions } from "./session.ts";
import { type BaseDType, chooseStorage } from "./storage.ts";
import { WeightFiles } from "./weight-files.ts";
import { WorkerClient } from "./worker-client.ts";

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
  private readonly client: WorkerClient;
  private readonly files: WeightFiles;
  private readonly coded: QuantizedWeights;
  private readonly session: SessionOptions;
  private readonly storage: ChooseStorage;
  private programs = 0;

  constructor(options: OnnxEngineOptions) {
    const { provider = "cpu", weights } = options;
    const baseDtype = baseDTypeOf(options);
    this.name = `onnx-${provider}`;
    this.files = new WeightFiles(weights);
    this.coded = new QuantizedWeights(weights);
    this.storage = (roots) => chooseStorage(roots, weights, baseDtype);
    this.client = new WorkerClient();
    this.session = {
      provider,
      threads: options.threads ?? 0,
      weightsFolder: this.files.folder,
      keepsMemory: options.memory !== "lean",
      packsWeights: options.memory === "packed",
      ...(options.profilePrefix !== undefined && { profilePrefix: options.profilePrefix }),
    };
  }

  async compile(graph: Graph): Promise<Program> {
    const profile = this.session.provider === "webgpu" ? "webgpu" : "cpu";
    const lowered = lowerGraph(graph, profile, this.storage);
    const spec = emitGraph(lowered, profile, await this.locate(lowered));
    const program = this.programs++;
    await this.client.send({ type: "compile", program, spec, options: this.session });
    return {
      run: async (feeds: Tensors) => {
        const own = Object.entries(feeds).map(([name, value]) => [name, alone(value)]);
        const request = { program, feeds: Object.fromEntries(own) as Tensors };
        const response = await this.client.send({ type: "run", ...request });
        return expectKind(response, "tensors").values;
      },
      dispose: async () => {
        await this.client.send({ type: "release", program });
      },
    };
  }

  async get(name: string): Promise<Tensor> {
    return expectKind(await this.client.send({ type: "get", name }), "tensor").value;
  }

  async set(name: string, value: Tensor): Promise<void> {
    await this.client.send({ type: "set", name, value: alone(value) });
  }

  async applyGradients(update: AdamWStep): Promise<{ gradNorm: number }> {
    const { gradNorm } = expectKind(await this.client.send({ type: "apply", update }), "norm");
    return { gradNorm };
  }

  async clearGradients(): Promise<void> {
    await this.client.send({ type: "clear" });
  }

  async dispose(): Promise<void> {
    await this.client.dispose();
    await this.files.dispose();
  }

  /** One weight after the other, so that no more than one is in this thread's memory. */
  private async locate(graph: Graph): Promise<WeightLocations> {
    const locations = new Map<string, Uint8Array | OnnxExternalData>();
    for (const { name, dtype } of topological(rootsOf(graph)).filter(isFrozen))
      locations.set(name!, await this.files.locate(name!, dtype, this.coded.compute(name!)));
    return locations;
  }
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

function expectKind<K extends Response["kind"]>(
  response: Response,
  kind: K,
): Response & { kind: K } {
  if (response.kind === kind) return response as Response & { kind: K };
  throw new LorikeetError(
    "engine-internal",
    `Expected an answer of kind ${kind}, got ${response.kind}`,
  );
}
