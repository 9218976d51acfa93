/** Serializable position of a `Random`: key and number of 32-bit words drawn. */
export interface RandomState {
  readonly key: number;
  readonly counter: number;
}

/**
 * A counter-based generator: word `i` of stream `key` is a pure function of both, so any position can be
 * saved, restored or computed on a GPU alike. Two rounds of a 32-bit finalizer (lowbias32) over key and counter.
 */
export class Random {
  readonly key: number;
  counter: number;

  constructor(state: number | RandomState) {
    this.key = typeof state === "number" ? state >>> 0 : state.key;
    this.counter = typeof state === "number" ? 0 : state.counter;
  }

  get state(): RandomState {
    return { key: this.key, counter: this.counter };
  }

  /** A uniform 32-bit unsigned integer. */
  word(): number {
    return hash32(this.key, this.counter++);
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return this.word() / 2 ** 32;
  }

  /** A whole number in [0, bound). */
  integer(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** Standard normal (Box-Muller; two words a value). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log((this.word() + 0.5) / 2 ** 32));
    return radius * Math.cos((2 * Math.PI * this.word()) / 2 ** 32);
  }

  /** `items` in a random order (Fisher-Yates), as a new array. */
  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }

  /** An independent generator derived from this one's key and `label`; does not advance this one. */
  fork(label: string): Random {
    let key = this.key;
    for (let i = 0; i < label.length; i++) key = hash32(key, label.charCodeAt(i) + i * 65536);
    return new Random(key);
  }
}

/** The 32-bit word at `counter` of stream `key`. Same integer arithmetic as the dropout op on every engine. */
export function hash32(key: number, counter: number): number {
  return mix(mix((counter ^ Math.imul(key, 0x9e3779b9)) >>> 0) ^ key);
}

function mix(word: number): number {
  let x = word >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
