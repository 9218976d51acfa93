/** The longest varint of a length below 2^35. */
const LENGTH_BYTES = 5;

/** Appends protobuf fields to one growing buffer. https://protobuf.dev/programming-guides/encoding/ */
export class ProtobufWriter {
  private bytes: Uint8Array = new Uint8Array(1 << 10);
  private view: DataView = new DataView(this.bytes.buffer);
  private size = 0;
  private readonly encoder = new TextEncoder();

  /** The message so far; a view that later writes may overwrite. */
  finish(): Uint8Array {
    return this.bytes.subarray(0, this.size);
  }

  /** A whole number (int32, int64, enum) field; negative ones take ten bytes. */
  int(field: number, value: number): void {
    this.reserve(20);
    this.varint(field * 8);
    if (value >= 0) this.varint(value);
    else this.negative(value);
  }

  /** A float field. */
  float(field: number, value: number): void {
    this.reserve(14);
    this.varint(field * 8 + 5);
    this.view.setFloat32(this.size, value, true);
    this.size += 4;
  }

  /** A bytes field. */
  raw(field: number, value: Uint8Array): void {
    this.reserve(value.length + 20);
    this.varint(field * 8 + 2);
    this.varint(value.length);
    this.bytes.set(value, this.size);
    this.size += value.length;
  }

  /** The start of a field of `length` bytes that are written elsewhere. */
  lengthOf(field: number, length: number): void {
    this.reserve(20);
    this.varint(field * 8 + 2);
    this.varint(length);
  }

  /** A string field. */
  text(field: number, value: string): void {
    this.reserve(value.length * 3 + 20);
    this.varint(field * 8 + 2);
    const start = this.size;
    if (this.ascii(value)) return;
    const { written } = this.encoder.encodeInto(value, this.bytes.subarray(start + LENGTH_BYTES));
    this.size = start + LENGTH_BYTES + written;
    this.close(start);
  }

  /** Writes the length and the characters of a short `value` of ASCII, of which names are. */
  private ascii(value: string): boolean {
    if (value.length > 127) return false;
    const { bytes, size } = this;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code > 127) return false;
      bytes[size + 1 + i] = code;
    }
    bytes[size] = value.length;
    this.size += 1 + value.length;
    return true;
  }

  /** A nested message, written by `write`. */
  message(field: number, write: () => void): void {
    this.reserve(20);
    this.varint(field * 8 + 2);
    const start = this.size;
    this.size += LENGTH_BYTES;
    write();
    this.close(start);
  }

  /** Puts the length of what follows the gap at `start` there, and closes the gap. */
  private close(start: number): void {
    const from = start + LENGTH_BYTES;
    const end = this.size;
    this.size = start;
    this.varint(end - from);
    this.bytes.copyWithin(this.size, from, end);
    this.size += end - from;
  }

  private varint(value: number): void {
    let rest = value;
    while (rest > 127) {
      this.bytes[this.size++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.size++] = rest;
  }

  private negative(value: number): void {
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 127n) {
      this.bytes[this.size++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    this.bytes[this.size++] = Number(rest);
  }

  private reserve(count: number): void {
    if (this.size + count <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.size + count));
    grown.set(this.bytes.subarray(0, this.size));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }
}
