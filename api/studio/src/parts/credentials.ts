/** What a PNG says of itself: its texts, and whether it carries content credentials (C2PA). */

export async function saysOfItself(file: ArrayBuffer): Promise<[name: string, value: string][]> {
  const bytes = new Uint8Array(file);
  const view = new DataView(file);
  const found: [string, string][] = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = latin(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "tEXt") found.push(split(data, 1));
    if (kind === "iTXt" && data[data.indexOf(0) + 1] === 0) found.push(international(data));
    if (kind === "caBX") found.push(["Content credentials", "C2PA manifest"]);
    at += length + 12;
  }
  return found.map(([name, value]) => (value.includes("trainedAlgorithmicMedia") ? ["Digital source type", "trained algorithmic media (IPTC)"] : [name, value]));
}

function split(data: Uint8Array, skip: number): [string, string] {
  const end = data.indexOf(0);
  return [latin(data.subarray(0, end)), latin(data.subarray(end + skip))];
}

function international(data: Uint8Array): [string, string] {
  const end = data.indexOf(0);
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  return [latin(data.subarray(0, end)), new TextDecoder().decode(data.subarray(translated + 1))];
}

const latin = (data: Uint8Array) => new TextDecoder("latin1").decode(data);
