/** Fields that transformers takes as floats only, in configurations that come from other formats. */
const FLOATS = ["attn_logit_softcapping", "final_logit_softcapping"];

/**
 * A configuration as JSON of two spaces. JavaScript knows one kind of number, transformers 5 refuses a whole number
 * in a field of floats: what `original`, the text that was parsed, spells as a float (30.0, 1e4) stays one.
 */
export function configJson(config: unknown, original = ""): string {
  const floats = new Set(FLOATS);
  const spelled = /"([^"\\]+)"\s*:\s*-?\d+(?:\.\d+(?:[eE][-+]?\d+)?|[eE][-+]?\d+)/g;
  for (const [, name] of original.matchAll(spelled)) floats.add(name!);
  const whole = /^(\s*"([^"\\]+)": -?\d+)(,?)$/gm;
  const text = JSON.stringify(config, undefined, 2).replace(
    whole,
    (line, start: string, name: string, comma: string) =>
      floats.has(name) ? `${start}.0${comma}` : line,
  );
  return `${text}\n`;
}
