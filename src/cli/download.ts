import { formatBytes } from "../host/run-files/run-numbers.ts";
import type { DownloadProgress } from "../host/hub.ts";

/** Shows files that are downloaded: a line that moves on a terminal, elsewhere one at the start and the end of each. */
export function showDownload(
  stream: NodeJS.WritableStream & { isTTY?: boolean },
): (progress: DownloadProgress) => void {
  let current = "";
  return ({ file, have, size }) => {
    const isEnd = have >= size;
    const isNew = file !== current;
    current = isEnd ? "" : file;
    const share = size > 0 ? Math.floor((100 * have) / size) : 100;
    const line = `${file}  ${formatBytes(have)} of ${formatBytes(size)}  ${share} %`;
    if (stream.isTTY) stream.write(`\r\u001b[K${line}${isEnd ? "\n" : ""}`);
    else if (isNew || isEnd) stream.write(`${line}\n`);
  };
}
