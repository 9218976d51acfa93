import { LorikeetError } from "../../errors.ts";

/** A class or function that a pickle names; only the reader decides what it stands for. */
export class PickleGlobal {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** A Python value: None is null, dicts are Maps, tuples and lists arrays, anything else what `PickleRules` made. */
export type PickleValue = unknown;

/** What a pickle may do; each may throw. */
export interface PickleRules {
  /** Result of calling the global `name` (`module.name`). */
  readonly call: (name: string, args: readonly PickleValue[]) => PickleValue;
  /** The object of a persistent id. */
  readonly persistent: (id: PickleValue) => PickleValue;
  /** Whether the global `name` may be mentioned at all. */
  readonly allows: (name: string) => boolean;
}

const MARK = Symbol("mark");

/**
 * Decodes a pickle (protocols 2-5) without running anything: classes and functions are names, which `rules` may turn
 * into values. https://github.com/python/cpython/blob/main/Lib/pickletools.py
 * @throws LorikeetError `unsafe-pickle` naming a global that is not allowed; `corrupt-pickle`
 */
export function unpickle(bytes: Uint8Array, name: string, rules: PickleRules): PickleValue {
  const machine = new Machine(bytes, name, rules);
  for (;;) {
    const code = machine.byte();
    if (code === 0x2e) return machine.pop();
    const run = OPCODES[code];
    if (!run) throw machine.corrupt(`opcode 0x${code.toString(16)} at ${machine.position - 1} is not one of those that tensors need`); // prettier-ignore
    run(machine);
  }
}

/** The error for a file that would run code. */
export function unsafe(name: string, global: string): LorikeetError {
  return new LorikeetError(
    "unsafe-pickle",
    `Expected ${name} to hold only tensors, but it names ${global}`,
    {
      hint: "Such a file can run any program when Python loads it. Ask for the weights as safetensors.",
    },
  );
}

class Machine {
  position = 0;
  readonly rules: PickleRules;
  readonly memo = new Map<number, PickleValue>();
  readonly stack: PickleValue[] = [];
  readonly view: DataView;
  readonly #bytes: Uint8Array;
  readonly #name: string;

  constructor(bytes: Uint8Array, name: string, rules: PickleRules) {
    this.#bytes = bytes;
    this.#name = name;
    this.rules = rules;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  take(length: number): number {
    const start = this.position;
    if (!(start + length <= this.#bytes.length)) throw this.corrupt("it is cut off");
    this.position += length;
    return start;
  }

  byte(): number {
    return this.#bytes[this.take(1)]!;
  }

  text(length: number): string {
    const start = this.take(length);
    return new TextDecoder().decode(this.#bytes.subarray(start, start + length));
  }

  line(): string {
    const end = this.#bytes.indexOf(10, this.position);
    if (end < 0) throw this.corrupt("it is cut off");
    const text = this.text(end - this.position);
    this.position++;
    return text;
  }

  /** A two's complement integer of `length` bytes. */
  long(length: number): number | bigint {
    if (length > 1024) throw this.corrupt(`an integer of ${length} bytes`);
    const start = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[start + i]!);
    const signed = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  }

  push(value: PickleValue): void {
    this.stack.push(value);
  }

  pop(): PickleValue {
    if (this.stack.length === 0 || this.stack.at(-1) === MARK)
      throw this.corrupt("its stack is empty");
    return this.stack.pop();
  }

  top(): PickleValue {
    const value = this.pop();
    this.stack.push(value);
    return value;
  }

  popToMark(): PickleValue[] {
    const mark = this.stack.lastIndexOf(MARK);
    if (mark < 0) throw this.corrupt("a mark is missing");
    return this.stack.splice(mark).slice(1);
  }

  tuple(size: number): void {
    const items = Array.from({ length: size }, () => this.pop());
    this.push(items.reverse());
  }

  setItems(items: readonly PickleValue[]): void {
    const target = this.top();
    if (!(target instanceof Map) || items.length % 2 !== 0)
      throw this.corrupt("items are set on no dict");
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
  }

  append(items: readonly PickleValue[]): void {
    const target = this.top();
    if (!Array.isArray(target)) throw this.corrupt("items are appended to no list");
    for (const item of items) target.push(item);
  }

  global(name: string): void {
    if (!this.rules.allows(name)) throw unsafe(this.#name, name);
    this.push(new PickleGlobal(name));
  }

  reduce(): void {
    const args = this.pop();
    const called = this.pop();
    if (!(called instanceof PickleGlobal) || !Array.isArray(args)) throw this.corrupt("something is called that is no function"); // prettier-ignore
    this.push(this.rules.call(called.name, args));
  }

  /** State set on a dict (`_metadata` of a state dict) is dropped; nothing else has any. */
  build(): void {
    this.pop();
    if (!(this.top() instanceof Map))
      throw this.corrupt("state is set on something else than a dict");
  }

  get(index: number): void {
    if (!this.memo.has(index)) throw this.corrupt(`memo ${index} is empty`);
    this.push(this.memo.get(index));
  }

  corrupt(fault: string): LorikeetError {
    return new LorikeetError(
      "corrupt-pickle",
      `Expected ${this.#name} to be a pickle of tensors, but ${fault}`,
      {
        hint: "Fetch the file again, or ask for the weights as safetensors.",
      },
    );
  }
}

const u32 = (m: Machine): number => m.view.getUint32(m.take(4), true);
const u64 = (m: Machine): number => Number(m.view.getBigUint64(m.take(8), true));

const OPCODES: Readonly<Record<number, (m: Machine) => void>> = {
  0x80: (m) => m.byte(), // PROTO
  0x95: (m) => m.take(8), // FRAME
  0x28: (m) => m.push(MARK), // MARK
  0x30: (m) => m.pop(), // POP
  0x31: (m) => m.popToMark(), // POP_MARK
  0x32: (m) => m.push(m.top()), // DUP
  0x4e: (m) => m.push(null), // NONE
  0x88: (m) => m.push(true), // NEWTRUE
  0x89: (m) => m.push(false), // NEWFALSE
  0x4a: (m) => m.push(m.view.getInt32(m.take(4), true)), // BININT
  0x4b: (m) => m.push(m.byte()), // BININT1
  0x4d: (m) => m.push(m.view.getUint16(m.take(2), true)), // BININT2
  0x8a: (m) => m.push(m.long(m.byte())), // LONG1
  0x8b: (m) => m.push(m.long(u32(m))), // LONG4
  0x47: (m) => m.push(m.view.getFloat64(m.take(8), false)), // BINFLOAT
  0x54: (m) => m.push(m.text(u32(m))), // BINSTRING
  0x55: (m) => m.push(m.text(m.byte())), // SHORT_BINSTRING
  0x58: (m) => m.push(m.text(u32(m))), // BINUNICODE
  0x8c: (m) => m.push(m.text(m.byte())), // SHORT_BINUNICODE
  0x8d: (m) => m.push(m.text(u64(m))), // BINUNICODE8
  0x5d: (m) => m.push([]), // EMPTY_LIST
  0x61: (m) => m.append([m.pop()]), // APPEND
  0x65: (m) => m.append(m.popToMark()), // APPENDS
  0x6c: (m) => m.push(m.popToMark()), // LIST
  0x29: (m) => m.push([]), // EMPTY_TUPLE
  0x74: (m) => m.push(m.popToMark()), // TUPLE
  0x85: (m) => m.tuple(1), // TUPLE1
  0x86: (m) => m.tuple(2), // TUPLE2
  0x87: (m) => m.tuple(3), // TUPLE3
  0x7d: (m) => m.push(new Map()), // EMPTY_DICT
  0x73: (m) => {
    const value = m.pop(); // SETITEM
    m.setItems([m.pop(), value]);
  },
  0x75: (m) => m.setItems(m.popToMark()), // SETITEMS
  0x63: (m) => m.global(`${m.line()}.${m.line()}`), // GLOBAL
  0x93: (m) => {
    const [name, module] = [m.pop(), m.pop()]; // STACK_GLOBAL
    if (typeof name !== "string" || typeof module !== "string")
      throw m.corrupt("a global has no name");
    m.global(`${module}.${name}`);
  },
  0x52: (m) => m.reduce(), // REDUCE
  0x62: (m) => m.build(), // BUILD
  0x51: (m) => m.push(m.rules.persistent(m.pop())), // BINPERSID
  0x71: (m) => m.memo.set(m.byte(), m.top()), // BINPUT
  0x72: (m) => m.memo.set(u32(m), m.top()), // LONG_BINPUT
  0x94: (m) => m.memo.set(m.memo.size, m.top()), // MEMOIZE
  0x68: (m) => m.get(m.byte()), // BINGET
  0x6a: (m) => m.get(u32(m)), // LONG_BINGET
};
