/** @file Trainable parameters on the GPU: what programs see of them, their copies, and their updates. */
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AdamWStep } from "../backend.ts";
import { openUpdater } from "./adamw.ts";
import { type Communicator, gradientSum } from "./communicator.ts";
import { allocateDevice, type Device } from "./device.ts";
import { loadModule } from "./kernels.ts";
import { fillZero } from "./memory.ts";
import { declare, read, type Slot, type Store, storedPart, write } from "./parameter-buckets.ts";
import type { Precision } from "./plan/graph.ts";
import { newValue, type Storage, type Value } from "./plan/value.ts";

export interface TrainableState {
  /** Gives memory to parameters that have none yet, in this order. */
  declare(parameters: readonly { readonly name: string; readonly shape: Shape }[]): void;
  has(name: string): boolean;
  /** A stored value of a parameter (or its gradient) in float32. */
  value(name: string, part: "" | ".grad"): Value;
  /** The copy of a parameter that matrix products read; `place` says where it goes if it has none yet. */
  copyOf(name: string, storage: Storage, place?: () => Value): Value;
  /** The same copy transposed (of a parameter that has a copy already). */
  transposedOf(name: string): Value;
  /** Marks a parameter as one that a program computes the gradient of. */
  expectGradient(name: string): void;
  /** Brings copies and launch tables up to date after a program was planned. */
  refresh(): void;
  read(name: string): Tensor;
  write(name: string, value: Tensor): void;
  update(step: AdamWStep): Promise<{ gradNorm: number }>;
  /** Adds gradients up over all processes, once before each update. */
  sumGradients(): Promise<void>;
  clearGradients(): void;
}

export function trainableState(
  device: Device,
  precision: Precision,
  ranks?: Communicator,
): TrainableState {
  const module = loadModule(device, ["adamw"], { T: precision });
  const store: Store = {
    ...{ device, slots: new Map(), buckets: [], pending: new Map() },
    copy: module.kernel("copy_parameters", "ppp"),
  };
  const { slots, buckets } = store;
  const sum = gradientSum(ranks, () =>
    buckets.map(({ arrays, size }) => [arrays[".grad"], size] as const),
  );
  const updater = openUpdater(store, module, sum);
  return {
    declare: (parameters) => {
      declare(store, parameters);
    },
    has: (name) => slots.has(name),
    value: (name, part) => storedPart(slots.get(name)!, part),
    copyOf(name, storage, place) {
      const slot = slots.get(name)!;
      slot.copy ??= place?.() ?? ownCopy(device, slot, storage);
      return slot.copy;
    },
    transposedOf(name) {
      const slot = slots.get(name)!;
      const [rows, columns] = slot.shape as [number, number];
      slot.transposed ??= {
        ...ownCopy(device, { ...slot, shape: [columns, rows] }, slot.copy!.storage),
        factor: slot.copy!.factor,
      };
      return slot.transposed;
    },
    expectGradient: (name) => void (slots.get(name)!.hasGradient = true),
    ...updater,
    read: (name) => read(store, name),
    write: (name, value) => {
      write(store, name, value);
    },
    sumGradients: () => sum.addUp(),
    clearGradients() {
      sum.reset();
      for (const { arrays, size } of buckets) fillZero(device, arrays[".grad"], size * 4);
    },
  };
}

function ownCopy(device: Device, slot: Slot, storage: Storage): Value {
  const value = newValue(slot.shape, storage);
  value.region = {
    bytes: value.region.bytes,
    address: allocateDevice(device, value.region.bytes, `a copy of ${slot.name}`),
    isPlanned: false,
  };
  return value;
}
