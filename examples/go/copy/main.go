// Keep a copy of what a watcher publishes in a file: the changes, and the rows of its snapshots.
//
//	go run ./copy STREAM copy.db [nats://127.0.0.1:4222]
//	go run ./copy --list copy.db
//
// The documents and the place on the stream are stored in one transaction of bbolt. So after any crash the program
// continues with the first message that it has not applied, and none is applied twice.
//
// A row needs no code of its own: like an insert or an update it has the document as it is at that place. Of a document's
// messages the one with the greatest position wins, so what a rewind brings again changes nothing.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.etcd.io/bbolt"
)

// Event is the part of a change event or a row that a copy needs. It stays JSON, whatever a document holds.
type Event struct {
	ID struct {
		Data string `json:"_data"`
	} `json:"_id"`
	Operation string `json:"operationType"`
	Namespace struct {
		Database   string `json:"db"`
		Collection string `json:"coll"`
	} `json:"ns"`
	DocumentKey  map[string]json.RawMessage `json:"documentKey"` // a struct would take "_ID" of a shard key for "_id"
	FullDocument json.RawMessage            `json:"fullDocument"`
	Snapshot     struct {
		Documents int64 `json:"documents"`
	} `json:"snapshot"`
}

// Stored is what the copy knows of a document. A deleted one leaves its position, so that an older change is recognised.
type Stored struct {
	Position string          `json:"position"`
	Document json.RawMessage `json:"document"`
}

var (
	documents = []byte("documents") // namespace, a zero byte, `_id` as JSON: Stored
	place     = []byte("place")     // "created", and "sequence" of the last message that is applied
	snapshots = []byte("snapshots") // of each run: how many rows came
)

// whole returns the body of a message: its own, or that of the object that the message points to.
func whole(ctx context.Context, js jetstream.JetStream, message jetstream.Msg) ([]byte, error) {
	pointer := message.Headers().Get("Changewire-Object")
	if pointer == "" {
		return message.Data(), nil
	}
	bucket, name, _ := strings.Cut(pointer, "/")
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, err
	}
	return store.GetBytes(ctx, name)
}

// apply applies one message within a transaction.
func apply(copied *bbolt.Tx, message jetstream.Msg, body []byte) error {
	var event Event
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	headers, runs := message.Headers(), copied.Bucket(snapshots)
	run := []byte(headers.Get("Changewire-Snapshot"))
	if reason := headers.Get("Changewire-Gap"); reason != "" {
		fmt.Printf("changes are missing here (%s): the copy is empty; take a snapshot\n", reason)
		for _, bucket := range [][]byte{documents, snapshots} {
			if err := copied.DeleteBucket(bucket); err != nil {
				return err
			}
			if _, err := copied.CreateBucket(bucket); err != nil {
				return err
			}
		}
		return nil
	}
	switch event.Operation {
	case "snapshot_done":
		fmt.Printf("snapshot %s is complete: %d of %d documents came\n", run, number(runs.Get(run)), event.Snapshot.Documents)
		return nil
	case "snapshot":
		if err := runs.Put(run, bytesOf(number(runs.Get(run))+1)); err != nil {
			return err
		}
	case "insert", "update", "replace", "delete":
	default:
		fmt.Println(message.Subject(), "is not applied")
		return nil
	}
	if event.Operation == "update" && event.FullDocument == nil {
		return errors.New("an update comes without its document: set the watcher's source.full_document to updateLookup")
	}
	// The key of a sharded collection has more fields in a change than in a row: the `_id` is what both have.
	var key bytes.Buffer
	fmt.Fprintf(&key, "%s.%s\x00", event.Namespace.Database, event.Namespace.Collection)
	if err := json.Compact(&key, event.DocumentKey["_id"]); err != nil {
		return err
	}
	if key.Len() > bbolt.MaxKeySize {
		fmt.Printf("a document is not copied: its key has %d bytes, and bbolt takes %d\n", key.Len(), bbolt.MaxKeySize)
		return nil
	}
	for field := range strings.SplitSeq(headers.Get("Changewire-Reduced"), ", ") {
		if field == "fullDocument" {
			fmt.Printf("%q is too large to send; look it up in MongoDB\n", key.String())
			return nil
		}
	}
	var before Stored
	if there := copied.Bucket(documents).Get(key.Bytes()); there != nil {
		if err := json.Unmarshal(there, &before); err != nil {
			return err
		}
	}
	if event.ID.Data <= before.Position {
		return nil // known already
	}
	after, err := json.Marshal(Stored{event.ID.Data, event.FullDocument})
	if err != nil {
		return err
	}
	return copied.Bucket(documents).Put(key.Bytes(), after)
}

func number(stored []byte) uint64 {
	if stored == nil {
		return 0
	}
	return binary.BigEndian.Uint64(stored)
}

func bytesOf(number uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, number)
}

// begin returns the sequence of the last message that is applied. A stream that was recreated begins with 1 again.
func begin(ctx context.Context, copied *bbolt.DB, stream jetstream.Stream) (uint64, error) {
	info, err := stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	created, applied := []byte(info.Created.UTC().Format(time.RFC3339Nano)), uint64(0)
	return applied, copied.Update(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{documents, place, snapshots} {
			if _, err := tx.CreateBucketIfNotExists(bucket); err != nil {
				return err
			}
		}
		if bytes.Equal(tx.Bucket(place).Get([]byte("created")), created) {
			applied = number(tx.Bucket(place).Get([]byte("sequence")))
			return nil
		}
		if err := tx.Bucket(place).Put([]byte("sequence"), bytesOf(0)); err != nil {
			return err
		}
		return tx.Bucket(place).Put([]byte("created"), created)
	})
}

// next waits for a message, and returns it with those that have come as well.
func next(messages jetstream.MessagesContext) ([]jetstream.Msg, error) {
	first, err := messages.Next()
	if err != nil {
		return nil, err
	}
	batch := []jetstream.Msg{first}
	for len(batch) < 500 {
		message, err := messages.Next(jetstream.NextMaxWait(10 * time.Millisecond))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return batch, nil
		}
		if err != nil {
			return nil, err
		}
		batch = append(batch, message)
	}
	return batch, nil
}

// copyBatch applies messages in one transaction, with the place after them.
func copyBatch(ctx context.Context, copied *bbolt.DB, js jetstream.JetStream, batch []jetstream.Msg) error {
	last := uint64(0)
	err := copied.Update(func(tx *bbolt.Tx) error {
		for _, message := range batch {
			metadata, err := message.Metadata()
			if err != nil {
				return err
			}
			body, err := whole(ctx, js, message)
			if err != nil {
				return err
			}
			last = metadata.Sequence.Stream
			if err := apply(tx, message, body); err != nil {
				return fmt.Errorf("message %d: %w", last, err)
			}
		}
		return tx.Bucket(place).Put([]byte("sequence"), bytesOf(last))
	})
	if err == nil {
		fmt.Printf("up to %d: %d messages\n", last, len(batch))
	}
	return err
}

func run(ctx context.Context, name, path, url string) error {
	copied, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer copied.Close()
	connection, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer connection.Close()
	js, err := jetstream.New(connection)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	applied, err := begin(ctx, copied, stream)
	if err != nil {
		return err
	}
	// An ordered consumer delivers in order and without a hole: it begins again where one was about to be.
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   applied + 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		messages.Stop()
	}()
	for {
		batch, err := next(messages)
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		// Ctrl-C waits until these are applied.
		if err := copyBatch(context.WithoutCancel(ctx), copied, js, batch); err != nil {
			return err
		}
	}
}

// list prints each document of a copy that nobody has open.
func list(path string) error {
	copied, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return err
	}
	defer copied.Close()
	return copied.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(documents).ForEach(func(key, value []byte) error {
			var stored Stored
			if err := json.Unmarshal(value, &stored); err != nil || string(stored.Document) == "null" {
				return err
			}
			namespace, id, _ := bytes.Cut(key, []byte{0})
			fmt.Printf("%s\t%s\t%s\n", namespace, id, stored.Document)
			return nil
		})
	})
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "go run ./copy STREAM copy.db [nats://127.0.0.1:4222], or go run ./copy --list copy.db")
		os.Exit(2)
	}
	if os.Args[1] == "--list" {
		if err := list(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	url := nats.DefaultURL
	if len(os.Args) == 4 {
		url = os.Args[3]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], url); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
