/** @file The order of units, and where their values lie in one arena. */
import type { Region, Unit, Value } from "./value.ts";

/**
 * Orders units so that inputs come first: otherwise as given, but eager units (parameter gradients, and what is
 * computed again for them alone) run as soon as they can, which frees the activations they read, and other late ones
 * only when they are needed. Undefined when units need each other.
 */
export function schedule(units: readonly Unit[]): Unit[] | undefined {
  const links = linksOf(units);
  const eager = eagerUnits(units, links);
  const done = new Set<Unit>();
  for (const unit of units) {
    if (eager.has(unit) || unit.isLate) continue;
    const before = done.size;
    if (!emit(unit, links, done)) return undefined;
    emitReady([...done].slice(before), { links, eager, done });
  }
  for (const unit of units) if (!emit(unit, links, done)) return undefined;
  return [...done]; // sets keep the order in which they were filled
}

/** What each unit needs before it, and which ones need it. */
interface Links {
  readonly needs: ReadonlyMap<Unit, ReadonlySet<Unit>>;
  readonly users: ReadonlyMap<Unit, ReadonlySet<Unit>>;
}

function linksOf(units: readonly Unit[]): Links {
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
  return { needs, users };
}

/** Eager units, and late ones that only eager ones use. */
function eagerUnits(units: readonly Unit[], { users }: Links): Set<Unit> {
  const eager = new Set(units.filter((unit) => unit.isEager));
  for (let before = -1; before !== eager.size;) {
    before = eager.size;
    for (const unit of [...units].reverse()) {
      const after = [...users.get(unit)!];
      if (unit.isLate && after.length > 0 && after.every((user) => eager.has(user)))
        eager.add(unit);
    }
  }
  return eager;
}

/** Adds `unit` to `done`, after all that it needs; false when units need each other. */
function emit(unit: Unit, { needs }: Links, done: Set<Unit>): boolean {
  const stack = [unit];
  const open = new Set<Unit>();
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const missing = done.has(top) ? [] : [...needs.get(top)!].filter((each) => !done.has(each));
    if (missing.length === 0) {
      done.add(top);
      stack.pop();
      continue;
    }
    if (open.has(top)) return false;
    open.add(top);
    // what is pushed last runs first: late units after all else that this one waits for
    stack.push(...missing.filter((each) => each.isLate), ...missing.filter((each) => !each.isLate));
  }
  return true;
}

/** Adds eager units that `from` made ready, and those that these make ready. */
function emitReady(
  from: readonly Unit[],
  { links, eager, done }: { links: Links; eager: ReadonlySet<Unit>; done: Set<Unit> },
): void {
  const { needs, users } = links;
  const isReady = (unit: Unit): boolean =>
    eager.has(unit) && !done.has(unit) && [...needs.get(unit)!].every((each) => done.has(each));
  const stack = [...from];
  while (stack.length > 0)
    for (const user of users.get(stack.pop()!)!) {
      if (!isReady(user)) continue;
      emit(user, links, done);
      stack.push(user);
    }
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
