/** Names for what the OpenAPI document describes; schema.d.ts is made from it. */
import type { components } from "./schema";

type Schemas = components["schemas"];
export type Subject = Schemas["SubjectAnswer"];
export type Job = Schemas["JobAnswer"];
export type JobEvent = Schemas["JobEvent"];
export type Picture = Schemas["PictureAnswer"];
export type Batch = Schemas["BatchAnswer"];
export type Model = Schemas["ModelAnswer"];
export type Pack = Schemas["PackAnswer"];
export type Problem = Schemas["Problem"];
export type PhotosChecked = Schemas["PhotosChecked"];
export type PhotoCheck = Schemas["PhotoCheckAnswer"];
export type Receipt = Schemas["DeletionReceipt"];
export type Usage = Schemas["UsageAnswer"];
export type Generation = Schemas["GenerationRequest"];
export type FaceBox = Schemas["FaceBox"];
