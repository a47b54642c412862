// Read and write a platform whose API key is set, with Temporal's TypeScript SDK:
//
//   const keys = process.env.FACILITAIR_PAYLOAD_KEYS!;
//   const client = new Client({ connection, dataConverter: { payloadCodecs: [new Codec(keys)] } });
//   const memo = { facilitair_proof: proof(keys, "my-review", "code-review") };
//   await client.workflow.execute("code-review", {
//     args: [{ file: "…" }], workflowId: "my-review", taskQueue: "collaborations", memo,
//   });
import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from "node:crypto";
import type { Payload, PayloadCodec } from "@temporalio/common";
import { temporal } from "@temporalio/proto";

const text = (bytes?: Uint8Array | null) => Buffer.from(bytes ?? []).toString();

export class Codec implements PayloadCodec {
  private keys = new Map<string, Buffer>();

  constructor(keys: string) {
    for (const one of keys.split(",")) {
      const key = Buffer.from(one, "base64url");
      this.keys.set(createHash("sha256").update(key).digest("hex").slice(0, 8), key);
    }
  }

  async encode(payloads: Payload[]): Promise<Payload[]> {
    const [name, key] = [...this.keys][0];
    return payloads.map((payload) => {
      const nonce = randomBytes(12);
      const cipher = createCipheriv("aes-256-gcm", key, nonce);
      const plain = temporal.api.common.v1.Payload.encode(payload).finish();
      const data = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
      return {
        metadata: { encoding: Buffer.from("binary/encrypted"), "encryption-key-id": Buffer.from(name) },
        data,
      };
    });
  }

  async decode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => {
      if (text(payload.metadata?.encoding) !== "binary/encrypted") return payload;
      const key = this.keys.get(text(payload.metadata?.["encryption-key-id"]));
      if (!key) throw new Error("sealed with a key that FACILITAIR_PAYLOAD_KEYS does not hold");
      const data = Buffer.from(payload.data!);
      const cipher = createDecipheriv("aes-256-gcm", key, data.subarray(0, 12));
      cipher.setAuthTag(data.subarray(-16));
      const plain = Buffer.concat([cipher.update(data.subarray(12, -16)), cipher.final()]);
      return temporal.api.common.v1.Payload.decode(plain);
    });
  }
}

/** What the memo `facilitair_proof` of a start must hold; `type` is the definition's name. */
export function proof(keys: string, id: string, type: string, tenant = "default", actor = ""): string {
  const first = Buffer.from(keys.split(",")[0], "base64url");
  const key = createHmac("sha256", first).update("facilitair proof").digest();
  const parts = ["start", tenant, actor, id, type].map((one) => createHash("sha256").update(one).digest());
  return createHmac("sha256", key).update(Buffer.concat(parts)).digest("hex");
}
