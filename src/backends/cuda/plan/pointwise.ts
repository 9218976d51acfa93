/** @file C expressions of elementwise primitives. */

/** Expression of each elementwise op on float expressions of its inputs. */
export const pointwise: Readonly<Record<string, (...x: string[]) => string>> = {
  add: (a, b) => `${a} + ${b}`,
  sub: (a, b) => `${a} - ${b}`,
  mul: (a, b) => `${a} * ${b}`,
  div: (a, b) => `${a} / ${b}`,
  neg: (x) => `-${x}`,
  exp: (x) => `expf(${x})`,
  log: (x) => `logf(${x})`,
  sqrt: (x) => `sqrtf(${x})`,
  rsqrt: (x) => `rsqrtf(${x})`,
  sin: (x) => `sinf(${x})`,
  cos: (x) => `cosf(${x})`,
  tanh: (x) => `tanhf(${x})`,
  erf: (x) => `erff(${x})`,
  sigmoid: (x) => `1.f / (1.f + expf(-${x}))`,
  relu: (x) => `fmaxf(${x}, 0.f)`,
  maximum: (a, b) => `fmaxf(${a}, ${b})`,
  less: (a, b) => `(${a} < ${b} ? 1.f : 0.f)`,
  equal: (a, b) => `(${a} == ${b} ? 1.f : 0.f)`,
  select: (condition, a, b) => `(${condition} != 0.f ? ${a} : ${b})`,
  broadcastTo: (x) => x,
  boundary: (x) => x,
  stopGradient: (x) => x,
};

/** A float literal of C with the value of `x`. */
export function literalText(x: number): string {
  if (Number.isNaN(x)) return "__int_as_float(0x7fffffff)";
  if (!Number.isFinite(x))
    return x > 0 ? "__int_as_float(0x7f800000)" : "__int_as_float(0xff800000)";
  const single = Math.fround(x);
  if (!Number.isFinite(single)) return literalText(single);
  const text = String(single);
  const number = `${/[.e]/.test(text) ? text : `${text}.0`}f`;
  return single < 0 || Object.is(single, -0) ? `(${number})` : number;
}
