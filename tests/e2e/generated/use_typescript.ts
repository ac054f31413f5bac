// What a user writes on the client that @hey-api/openapi-ts makes: `node use_typescript.js URL PHOTO FOLDER`.
import { readFileSync, writeFileSync } from 'node:fs';
import { client } from './made/client.gen';
import * as sdk from './made/sdk.gen';
import type { JobAnswer, JobEvent } from './made/types.gen';

const [url, photo, folder] = process.argv.slice(2) as [string, string, string];
const prompt = 'a pencil sketch of a [V] face';
client.setConfig({ baseUrl: url, throwOnError: true });

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

async function ended(job_id: string): Promise<JobAnswer> {
  const { data: job } = await sdk.readJob({ path: { job_id }, headers: { Prefer: 'wait=60' }, throwOnError: true });
  check(job.status === 'succeeded', job);
  return job;
}

async function main(): Promise<void> {
  const face = new Blob([readFileSync(photo)], { type: 'image/jpeg' });
  const { data: made } = await sdk.createSubject({
    body: { photo: [face], consent: true, keep_photos: true, name: 'Ada', options: { steps: 3, seed: 5 } },
    throwOnError: true,
  });
  await ended(made.job_id);
  const path = { subject_id: made.id };
  const { data: more } = await sdk.addPhotos({ path, body: { photo: [face, face], consent: true }, throwOnError: true });
  await ended(more.job_id);
  const { data: subject } = await sdk.readSubject({ path, throwOnError: true });
  check(subject.status === 'ready' && subject.name === 'Ada' && subject.photos_kept === 3, subject);

  const { error } = await sdk.createGeneration({ body: { prompt }, throwOnError: false });
  check(error?.code === 'invalid-input', error);
  const blend = [1, 2].map((weight) => ({ subject_id: made.id, weight }));
  for (const body of [{ prompt, subject_id: made.id, n: 2 }, { prompt, blend }]) {
    const { data: job } = await sdk.createGeneration({ body, throwOnError: true });
    const seen: JobEvent[] = [];
    const { stream } = await sdk.followJob({ path: { job_id: job.id }, sseMaxRetryAttempts: 1 });
    for await (const event of stream) if (typeof event === 'object') seen.push(event);
    check(seen[0]?.type === 'queued' && seen.at(-1)?.type === 'succeeded', seen);
    check(seen.at(-1)?.job?.id === job.id, seen);
    for (const image of (await ended(job.id)).images ?? []) {
      const { data: png } = await sdk.readImage({ path: { image_id: image.id }, throwOnError: true });
      const bytes = Buffer.from(await png.arrayBuffer());
      check(bytes.subarray(1, 4).toString() === 'PNG', image);
      writeFileSync(`${folder}/${image.id}.png`, bytes);
    }
  }

  const asked = { prompts: [prompt, prompt], subject_ids: [made.id] };
  const { data: batch } = await sdk.createBatch({ body: asked, throwOnError: true });
  const at = { path: { batch_id: batch.id }, throwOnError: true } as const;
  while ((await sdk.readBatch(at)).data.status !== 'completed');
  const { data: results } = await sdk.readResults({ ...at, parseAs: 'text' });
  const lines = results.trim().split('\n').map((line) => JSON.parse(line));
  check(lines.length === 2 && lines.every((item) => item.status === 'succeeded'), results);
  const { data: receipt } = await sdk.deleteSubject({ path, throwOnError: true });
  check(receipt.subject_id === made.id, receipt);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
