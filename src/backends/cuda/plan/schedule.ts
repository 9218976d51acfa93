/** @file The order of units, and where their values lie in one arena. */
import { LorikeetError } from "../../../errors.ts";
import type { Region, Unit, Value } from "./value.ts";

/**
 * Orders units so that inputs come first: otherwise as given, but eager units (parameter gradients, and what is
 * computed again for them alone) run as soon as they can, which frees the activations they read, and other late ones
 * only when they are needed.
 */
export function schedule(units: readonly Unit[]): Unit[] {
  const producers = new Map<Value, Unit>();
  for (const unit of units)
    for (const value of unit.writes)
      if (value.region.isPlanned || !producers.has(value)) producers.set(value, unit);
  const needs = new Map<Unit, Set<Unit>>();
  const users = new Map<Unit, Set<Unit>>(units.map((unit) => [unit, new Set<Unit>()]));
  for (const unit of units) {
    const before = new Set<Unit>();
    for (const value of unit.reads) {
      const producer = producers.get(value);
      if (!producer || producer === unit) continue;
      before.add(producer);
      users.get(producer)!.add(unit);
    }
    needs.set(unit, before);
  }
  const eager = new Set(units.filter((unit) => unit.isEager));
  for (let before = -1; before !== eager.size;) {
    before = eager.size;
    for (const unit of [...units].reverse()) {
      const after = [...users.get(unit)!];
      if (unit.isLate && after.length > 0 && after.every((user) => eager.has(user)))
        eager.add(unit);
    }
  }
  const done = new Set<Unit>();
  const order: Unit[] = [];
  const emit = (unit: Unit): void => {
    const stack: { unit: Unit; isOpen: boolean }[] = [{ unit, isOpen: false }];
    const open = new Set<Unit>();
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      if (done.has(top.unit)) {
        stack.pop();
        continue;
      }
      const missing = [...needs.get(top.unit)!].filter((each) => !done.has(each));
      if (missing.length === 0) {
        done.add(top.unit);
        order.push(top.unit);
        stack.pop();
        continue;
      }
      if (open.has(top.unit))
        throw new LorikeetError(
          "cuda-plan",
          `Units ${top.unit.name} and ${missing[0]!.name} need each other`,
        );
      open.add(top.unit);
      // what is pushed last runs first: late units after all else that this one waits for
      const sorted = [
        ...missing.filter((each) => each.isLate),
        ...missing.filter((each) => !each.isLate),
      ];
      for (const each of sorted) stack.push({ unit: each, isOpen: false });
    }
  };
  const emitReady = (from: readonly Unit[]): void => {
    const stack = [...from];
    while (stack.length > 0) {
      const unit = stack.pop()!;
      for (const user of users.get(unit)!) {
        if (
          !eager.has(user) ||
          done.has(user) ||
          [...needs.get(user)!].some((each) => !done.has(each))
        )
          continue;
        emit(user);
        stack.push(user);
      }
    }
  };
  for (const unit of units) {
    if (eager.has(unit) || unit.isLate) continue;
    const start = order.length;
    emit(unit);
    emitReady(order.slice(start));
  }
  for (const unit of units) emit(unit);
  return order;
}

/** Gives each planned region an offset so that regions alive at the same time do not overlap; returns the arena's size. */
export function layOut(units: readonly Unit[]): { bytes: number; place: (base: number) => void } {
  const lives = new Map<Region, { first: number; last: number }>();
  units.forEach((unit, i) => {
    for (const { region } of [...unit.reads, ...unit.writes, ...unit.scratch]) {
      if (!region.isPlanned) continue;
      const life = lives.get(region);
      if (life) life.last = i;
      else lives.set(region, { first: i, last: i });
    }
  });
  const regions = [...lives].sort(([a], [b]) => b.bytes - a.bytes);
  const placed: { first: number; last: number; start: number; end: number }[] = [];
  const offsets = new Map<Region, number>();
  let total = 0;
  for (const [region, { first, last }] of regions) {
    const size = Math.max(256, Math.ceil(region.bytes / 256) * 256);
    const busy = placed
      .filter((other) => other.first <= last && first <= other.last)
      .sort((a, b) => a.start - b.start);
    let start = 0;
    let best: { start: number; gap: number } | undefined;
    for (const other of busy) {
      const gap = other.start - start;
      if (gap >= size && (!best || gap < best.gap)) best = { start, gap };
      start = Math.max(start, other.end);
    }
    const offset = best?.start ?? start;
    offsets.set(region, offset);
    placed.push({ first, last, start: offset, end: offset + size });
    total = Math.max(total, offset + size);
  }
  return {
    bytes: total,
    place(base) {
      for (const [region, offset] of offsets) region.address = base + offset;
    },
  };
}
