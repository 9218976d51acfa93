/** @file A compiled graph on the GPU: its units in order, one arena, one captured CUDA graph. */
import { LorikeetError } from "../../errors.ts";
import type { Graph } from "../../ir/graph.ts";
import { toFloat32, toFloat64 } from "../../tensor/convert.ts";
import { formatShape, sizeOf } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { Program, Tensors } from "../backend.ts";
import {
  allocateDevice,
  type CapturedGraph,
  capture,
  type Device,
  timeOnDevice,
  freeDevice,
} from "./device.ts";
import { planAndCompile } from "./plan-program.ts";
import { allocatePinned, type PinnedMemory, writeDevice } from "./memory.ts";
import type { BuiltPlan } from "./plan/build.ts";
import type { EngineParts } from "./plan/context.ts";
import type { Precision } from "./plan/graph.ts";
import type { AttentionChoice } from "./plan/attention-units.ts";
import type { Unit, Value } from "./plan/value.ts";

/** Device memory that all programs of an engine use in turn. It may move when a larger program comes. */
export interface Arena {
  readonly address: number;
  readonly bytes: number;
  /** Makes it at least this large. @throws LorikeetError `cuda-memory` when that does not fit */
  reserve(bytes: number): void;
}

/** A program with what can be measured about it. */
export interface CudaProgram extends Program {
  /** Bytes of intermediate values. */
  readonly arenaBytes: number;
  /** Milliseconds and launches of each kind of unit, replayed alone (on whatever the values then hold). */
  profile(): { readonly name: string; readonly count: number; readonly milliseconds: number }[];
  /** Milliseconds of one run on the GPU alone. */
  time(): number;
}

/** Inputs or outputs of a program: one block of device memory and its pinned mirror. */
interface Transfer {
  readonly device: number;
  readonly pinned: PinnedMemory;
  readonly bytes: number;
  readonly places: ReadonlyMap<string, { readonly value: Value; readonly offset: number }>;
}

/** A program that is built again when a cache that it reads has moved. */
export async function compileProgram(
  parts: EngineParts,
  arena: Arena,
  graph: Graph,
  options: { precision: Precision; attention: AttentionChoice },
): Promise<CudaProgram> {
  let version = -1;
  let current: CudaProgram | undefined;
  const build = async (): Promise<CudaProgram> => {
    parts.device.expectOpen();
    if (current && version === parts.caches.version) return current;
    const old = current;
    current = undefined; // building may fail
    await old?.dispose();
    current = await buildProgram(parts, arena, graph, options);
    version = parts.caches.version;
    return current;
  };
  const first = await build();
  if (!graph.caches) return first;
  return {
    get arenaBytes() {
      return current!.arenaBytes;
    },
    run: async (feeds) => (await build()).run(feeds),
    profile: () => current!.profile(),
    time: () => current!.time(),
    dispose: async () => current?.dispose(),
  };
}

async function buildProgram(
  parts: EngineParts,
  arena: Arena,
  graph: Graph,
  options: { precision: Precision; attention: AttentionChoice },
): Promise<CudaProgram> {
  const { device, state } = parts;
  const { plan, units, layout, bytes } = await planAndCompile(parts, arena, graph, options);
  const inputs = transferOf(device, plan.inputs, "program inputs");
  const outputs = transferOf(device, plan.outputs, "program results");
  uploadLiterals(device, plan);

  let captured: { graph: CapturedGraph; base: number } | undefined;
  const life = lifeOf(device);
  const bindArena = (): CapturedGraph => {
    life.expectOpen();
    arena.reserve(bytes); // a program that did not fit may have taken it away
    if (captured?.base === arena.address) return captured.graph;
    captured?.graph.dispose();
    layout.place(arena.address);
    plan.scratch.address = arena.address;
    for (const unit of units) unit.prepare?.();
    const graph = captureAll(device, units, [inputs, outputs]);
    captured = { graph, base: arena.address };
    return graph;
  };
  bindArena();
  state.refresh();

  return {
    arenaBytes: layout.bytes,
    async run(feeds) {
      const program = bindArena();
      writeInputs(inputs, feeds);
      program.launch();
      await device.settled();
      life.expectOpen(); // the memory of results may be gone meanwhile
      return readOutputs(outputs);
    },
    profile: () => profile(device, units),
    time() {
      const program = bindArena();
      return timeOnDevice(device, () => {
        program.launch();
      });
    },
    dispose() {
      life.end();
      captured?.graph.dispose();
      release(device, plan, [inputs, outputs]);
      return Promise.resolve();
    },
  };
}

/** Whether a program may still be used; `end` waits for what runs. */
function lifeOf(device: Device): { expectOpen(): void; end(): void } {
  let isOpen = true;
  return {
    expectOpen() {
      device.expectOpen();
      if (!isOpen)
        throw new LorikeetError(
          "program-disposed",
          "Expected a program that is still there, got a disposed one",
        );
    },
    end() {
      if (isOpen && device.isOpen) device.driver.raw.cuStreamSynchronize(device.stream);
      isOpen = false;
    },
  };
}

function captureAll(
  device: Device,
  units: readonly Unit[],
  [inputs, outputs]: readonly [Transfer, Transfer],
): CapturedGraph {
  return capture(device, () => {
    copyIn(device, inputs);
    for (const unit of units) unit.enqueue();
    copyOut(device, outputs);
  });
}

function transferOf(device: Device, values: ReadonlyMap<string, Value>, purpose: string): Transfer {
  const places = new Map<string, { value: Value; offset: number }>();
  let bytes = 0;
  for (const [name, value] of values) {
    places.set(name, { value, offset: bytes });
    bytes += Math.ceil(value.region.bytes / 256) * 256;
  }
  const at = allocateDevice(device, bytes, purpose);
  for (const { value, offset } of places.values()) value.region.address = at + offset;
  return { device: at, pinned: allocatePinned(device, bytes), bytes, places };
}

function uploadLiterals(device: Device, { literals }: BuiltPlan): void {
  for (const { value, data } of literals) {
    value.region.address = allocateDevice(device, value.region.bytes, "constants of a program");
    writeDevice(device, value.region.address, data);
  }
}

function release(device: Device, { literals }: BuiltPlan, transfers: readonly Transfer[]): void {
  for (const { value } of literals) freeDevice(device, value.region.address);
  for (const transfer of transfers) {
    freeDevice(device, transfer.device);
    transfer.pinned.dispose();
  }
}

function copyIn({ driver, stream }: Device, { device, pinned, bytes }: Transfer): void {
  if (bytes > 0) driver.call.cuMemcpyHtoDAsync_v2(device, pinned.address, bytes, stream);
}

function copyOut({ driver, stream }: Device, { device, pinned, bytes }: Transfer): void {
  if (bytes > 0) driver.call.cuMemcpyDtoHAsync_v2(pinned.address, device, bytes, stream);
}

function writeInputs({ places, pinned }: Transfer, feeds: Tensors): void {
  for (const [name, { value, offset }] of places) {
    const feed = feeds[name];
    if (!feed || feed.data.length !== sizeOf(value.shape))
      throw new LorikeetError(
        "feed",
        `Expected a feed ${name} of shape ${formatShape(value.shape)}, got ${feed ? formatShape(feed.shape) : "none"}`,
      );
    if (value.storage === "f32")
      new Float32Array(pinned.buffer, offset, value.size).set(toFloat32(feed));
    else new Int32Array(pinned.buffer, offset, value.size).set(integers(feed));
  }
}

function integers(feed: Tensor): ArrayLike<number> {
  return feed.dtype === "i32" ? (feed.data as Int32Array) : toFloat64(feed);
}

function readOutputs({ places, pinned }: Transfer): Record<string, Tensor> {
  const results: Record<string, Tensor> = {};
  for (const [name, { value, offset }] of places)
    results[name] = tensor(
      "f32",
      value.shape,
      new Float32Array(pinned.buffer, offset, value.size).slice(),
    );
  return results;
}

function profile(
  device: Device,
  units: readonly Unit[],
): { name: string; count: number; milliseconds: number }[] {
  const kinds = [...new Set(units.map(({ name }) => name))];
  return kinds.map((name) => {
    const own = units.filter((unit) => unit.name === name);
    const graph = capture(device, () => {
      for (const unit of own) unit.enqueue();
    });
    const times = Array.from({ length: 4 }, () =>
      timeOnDevice(device, () => {
        graph.launch();
      }),
    );
    graph.dispose();
    return { name, count: own.length, milliseconds: Math.min(...times) };
  });
}
