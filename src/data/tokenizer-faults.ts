const KINDS = ["BPE", "WordPiece", "Unigram", "WordLevel"];

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What is wrong with the `model` of a tokenizer.json, where the library would go on with a wrong one; or undefined. */
export function modelFault(model: unknown): string | undefined {
  if (!isObject(model)) return "a model that is no object";
  const { type, vocab, merges } = model;
  if (type !== undefined && !KINDS.some((kind) => kind === type))
    return `a model of type ${JSON.stringify(type)} (known: ${KINDS.join(", ")})`;
  if (type === "Unigram" ? !isScored(vocab) : type !== undefined && !isNumbered(vocab))
    return `a vocabulary of ${type as string} that does not give each token its ${type === "Unigram" ? "score" : "id"}`;
  if (type === "BPE" && !isPairs(merges)) return "merges of BPE that are not all pairs";
  return undefined;
}

function isScored(vocab: unknown): boolean {
  return (
    Array.isArray(vocab) &&
    vocab.every((entry) => Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number") // prettier-ignore
  );
}

function isNumbered(vocab: unknown): boolean {
  return (
    isObject(vocab) && Object.values(vocab).every((id) => Number.isInteger(id) && (id as number) >= 0) // prettier-ignore
  );
}

/** Pairs are lists of two, or texts with a space between. */
function isPairs(merges: unknown): boolean {
  if (!Array.isArray(merges)) return false;
  return merges.every((pair) =>
    Array.isArray(pair) ? pair.length === 2 : typeof pair === "string" && pair.includes(" "),
  );
}
