/**
 * Keys that an object of JSON `text` holds more than once, each as its path (`weight_map.a`).
 * `JSON.parse` keeps the last one silently. `text` must be valid JSON.
 */
export function duplicateKeys(text: string): string[] {
  const duplicates: string[] = [];
  const open: { keys: Set<string> | undefined; path: string }[] = [];
  let lastKey = "";
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === "{" || char === "[") {
      const parent = open.at(-1);
      const path = parent === undefined ? "" : `${parent.path}${lastKey}.`;
      open.push({ keys: char === "{" ? new Set() : undefined, path });
    } else if (char === "}" || char === "]") {
      open.pop();
    } else if (char === '"') {
      const end = endOfString(text, i);
      const top = open.at(-1);
      if (top?.keys && isFollowedByColon(text, end)) {
        lastKey = JSON.parse(text.slice(i, end)) as string;
        if (top.keys.has(lastKey)) duplicates.push(top.path + lastKey);
        top.keys.add(lastKey);
      }
      i = end - 1;
    }
  }
  return duplicates;
}

/** Index after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
  return i + 1;
}

function isFollowedByColon(text: string, start: number): boolean {
  let i = start;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\r" || text[i] === "\t") i++;
  return text[i] === ":";
}
