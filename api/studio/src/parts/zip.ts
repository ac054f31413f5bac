/** A zip file without compression: PNG files are compressed already. */

const TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  let value = number;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) value = (TABLE[(value ^ byte) & 255] ?? 0) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function record(signature: number, fields: [size: 2 | 4, value: number][], name: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new DataView(new ArrayBuffer(4 + fields.reduce((sum, [size]) => sum + size, 0) + name.length));
  out.setUint32(0, signature, true);
  let at = 4;
  for (const [size, value] of fields) {
    if (size === 2) out.setUint16(at, value, true);
    else out.setUint32(at, value, true);
    at += size;
  }
  new Uint8Array(out.buffer).set(name, at);
  return new Uint8Array(out.buffer);
}

export interface Entry {
  name: string;
  data: Uint8Array<ArrayBuffer>;
}

export function zip(entries: Entry[]): Blob {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let at = 0;
  for (const { name, data } of entries) {
    const text = new TextEncoder().encode(name);
    const utf8 = 0x800;
    const common: [2 | 4, number][] = [[2, 20], [2, utf8], [2, 0], [2, 0], [2, 0x21], [4, crc(data)], [4, data.length], [4, data.length], [2, text.length], [2, 0]];
    const head = record(0x04034b50, common, text);
    directory.push(record(0x02014b50, [[2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]], text));
    parts.push(head, data);
    at += head.length + data.length;
  }
  const size = directory.reduce((sum, each) => sum + each.length, 0);
  const end = record(0x06054b50, [[2, 0], [2, 0], [2, entries.length], [2, entries.length], [4, size], [4, at], [2, 0]], new Uint8Array());
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
