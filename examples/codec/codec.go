// Package codec reads and writes a platform whose API key is set, with Temporal's Go SDK:
//
//	keys := os.Getenv("FACILITAIR_PAYLOAD_KEYS")
//	sealing, err := codec.New(keys)
//	converter := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), sealing)
//	temporal, err := client.Dial(client.Options{DataConverter: converter})
//	memo := map[string]any{"facilitair_proof": codec.Proof(keys, "default", "", "my-review", "code-review")}
//	options := client.StartWorkflowOptions{ID: "my-review", TaskQueue: "collaborations", Memo: memo}
//	run, err := temporal.ExecuteWorkflow(ctx, options, "code-review", map[string]any{"file": "…"})
package codec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/proto"
)

// Codec seals with the first of its keys (AES-256-GCM) and opens with every one of them.
type Codec struct {
	first   string
	ciphers map[string]cipher.AEAD
}

// New takes base64 of 32 bytes, several with commas between.
func New(keys string) (*Codec, error) {
	codec := &Codec{ciphers: map[string]cipher.AEAD{}}
	for _, one := range strings.Split(keys, ",") {
		key, err := base64.URLEncoding.DecodeString(one)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(key)
		name := hex.EncodeToString(sum[:])[:8]
		if codec.ciphers[name], err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
		if codec.first == "" {
			codec.first = name
		}
	}
	return codec, nil
}

// Encode implements converter.PayloadCodec.
func (c *Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	sealed := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		plain, err := proto.Marshal(payload)
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, 12)
		if _, err := rand.Read(nonce); err != nil {
			return nil, err
		}
		sealed[i] = &commonpb.Payload{
			Metadata: map[string][]byte{"encoding": []byte("binary/encrypted"), "encryption-key-id": []byte(c.first)},
			Data:     c.ciphers[c.first].Seal(nonce, nonce, plain, nil),
		}
	}
	return sealed, nil
}

// Decode implements converter.PayloadCodec.
func (c *Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		if string(payload.Metadata["encoding"]) != "binary/encrypted" {
			opened[i] = payload
			continue
		}
		gcm, known := c.ciphers[string(payload.Metadata["encryption-key-id"])]
		if !known || len(payload.Data) < 12 {
			return nil, fmt.Errorf("sealed with a key that FACILITAIR_PAYLOAD_KEYS does not hold")
		}
		plain, err := gcm.Open(nil, payload.Data[:12], payload.Data[12:], nil)
		if err != nil {
			return nil, err
		}
		opened[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(plain, opened[i]); err != nil {
			return nil, err
		}
	}
	return opened, nil
}

// Proof is what the memo facilitair_proof of a start must hold. The type is the definition's name; the tenant is
// "default" and the actor empty where the memo names none.
func Proof(keys, tenant, actor, id, workflowType string) string {
	first, _ := base64.URLEncoding.DecodeString(strings.Split(keys, ",")[0])
	key := sign(first, []byte("facilitair proof"))
	var parts []byte
	for _, part := range []string{"start", tenant, actor, id, workflowType} {
		sum := sha256.Sum256([]byte(part))
		parts = append(parts, sum[:]...)
	}
	return hex.EncodeToString(sign(key, parts))
}

func sign(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil)
}
