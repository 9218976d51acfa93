/** Super-blocks of 256 values, 16 groups of 16 with 4-bit scales and minima: 16 bytes of them, 64 of 2-bit values, f16 d, f16 dmin. */
export function dequantizeQ2K(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; p += 84) {
    const d = half[bytes[p + 80]! | (bytes[p + 81]! << 8)]!;
    const dmin = half[bytes[p + 82]! | (bytes[p + 83]! << 8)]!;
    for (let group = 0; group < 16; group++, o += 16) {
      const packed = bytes[p + group]!;
      const scale = d * (packed & 15);
      const minimum = dmin * (packed >> 4);
      const q = p + 16 + quarter(group);
      const shift = shiftOf(group);
      for (let i = 0; i < 16; i++) out[o + i] = scale * ((bytes[q + i]! >> shift) & 3) - minimum;
    }
  }
}

/** 256 third bits (inverted), 64 bytes of 2-bit values, 16 six-bit scales less 32 in 12 bytes, f16 d. */
export function dequantizeQ3K(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; p += 110) {
    const d = half[bytes[p + 108]! | (bytes[p + 109]! << 8)]!;
    const scales = p + 96;
    for (let group = 0; group < 16; group++, o += 16) {
      const low = (bytes[scales + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15;
      const high = (bytes[scales + 8 + (group & 3)]! >> (2 * (group >> 2))) & 3;
      const scale = d * ((low | (high << 4)) - 32);
      const q = p + 32 + quarter(group);
      const shift = shiftOf(group);
      const mask = p + 16 * (group & 1);
      const bit = group >> 1;
      for (let i = 0; i < 16; i++) {
        const third = (bytes[mask + i]! >> bit) & 1;
        out[o + i] = scale * (((bytes[q + i]! >> shift) & 3) - 4 + 4 * third);
      }
    }
  }
}

/** f16 d, f16 dmin, 8 six-bit scales and minima in 12 bytes, 128 bytes of nibbles: groups of 32. */
export function dequantizeQ4K(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; p += 144) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    const dmin = half[bytes[p + 2]! | (bytes[p + 3]! << 8)]!;
    for (let group = 0; group < 8; group++, o += 32) {
      const scale = d * scaleOf(bytes, p + 4, group);
      const minimum = dmin * minimumOf(bytes, p + 4, group);
      const q = p + 16 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) out[o + i] = scale * ((bytes[q + i]! >> shift) & 15) - minimum;
    }
  }
}

/** As Q4_K, with 32 bytes of fifth bits before the nibbles: bit `group` of byte i belongs to value i of the group. */
export function dequantizeQ5K(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; p += 176) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    const dmin = half[bytes[p + 2]! | (bytes[p + 3]! << 8)]!;
    for (let group = 0; group < 8; group++, o += 32) {
      const scale = d * scaleOf(bytes, p + 4, group);
      const minimum = dmin * minimumOf(bytes, p + 4, group);
      const q = p + 48 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      for (let i = 0; i < 32; i++) {
        const fifth = (bytes[p + 16 + i]! >> group) & 1;
        out[o + i] = scale * (((bytes[q + i]! >> shift) & 15) | (fifth << 4)) - minimum;
      }
    }
  }
}

/** 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 i8 scales, f16 d; values less 32. */
export function dequantizeQ6K(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; p += 210) {
    const d = half[bytes[p + 208]! | (bytes[p + 209]! << 8)]!;
    for (let group = 0; group < 16; group++, o += 16) {
      const scale = d * ((bytes[p + 192 + group]! << 24) >> 24);
      // a half of the block holds 128 values: 64 bytes, whose low nibbles are its first 64 values
      const low = p + 64 * (group >> 3) + 16 * (group & 3);
      const lowShift = group & 4;
      const high = p + 128 + quarter(group);
      const highShift = shiftOf(group);
      for (let i = 0; i < 16; i++) {
        const q = (bytes[low + i]! >> lowShift) & 15;
        out[o + i] = scale * ((q | (((bytes[high + i]! >> highShift) & 3) << 4)) - 32);
      }
    }
  }
}

/** Where the bytes of a group of 16 two-bit values start: each half of the block shares 32 bytes among its 8 groups. */
function quarter(group: number): number {
  return 32 * (group >> 3) + 16 * (group & 1);
}

/** Place of a group's two-bit values in their bytes. */
function shiftOf(group: number): number {
  return group & 6;
}

/** Six-bit scale `j` of eight: the last four keep their upper two bits beside the first four. */
function scaleOf(bytes: Uint8Array, p: number, j: number): number {
  if (j < 4) return bytes[p + j]! & 63;
  return (bytes[p + 4 + j]! & 15) | ((bytes[p + j - 4]! >> 6) << 4);
}

function minimumOf(bytes: Uint8Array, p: number, j: number): number {
  if (j < 4) return bytes[p + 4 + j]! & 63;
  return (bytes[p + 4 + j]! >> 4) | ((bytes[p + j]! >> 6) << 4);
}
