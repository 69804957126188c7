// Follow a Changewire stream with a durable consumer, and print a line per change.
//
//	go run . STREAM [nats://127.0.0.1:4222]
//
// After a restart it continues after the last change that it has acknowledged. It acknowledges a change after handling it,
// so a change comes twice if the program crashes in between; its sequence then tells.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Event is the part of a change event that a consumer mostly needs; MongoDB's manual lists all of it. What a document
// holds stays JSON: a document may contain {"$oid": "x"} as data, which no library can turn into an id.
type Event struct {
	Token struct {
		Data string `json:"_data"`
	} `json:"_id"`
	Operation    string          `json:"operationType"`
	DocumentKey  json.RawMessage `json:"documentKey"`
	FullDocument json.RawMessage `json:"fullDocument"`
}

// whole returns the body of a change: that of the message, or of the object that the message points to.
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

func handle(ctx context.Context, js jetstream.JetStream, message jetstream.Msg) error {
	metadata, err := message.Metadata()
	if err != nil {
		return err
	}
	body, err := whole(ctx, js, message)
	if err != nil {
		return err
	}
	if reason := message.Headers().Get("Changewire-Gap"); reason != "" {
		fmt.Println(message.Subject(), "changes are missing here:", reason)
		return nil
	}
	var event Event
	if err := json.Unmarshal(body, &event); err != nil {
		return err
	}
	fmt.Println(message.Subject(), metadata.Sequence.Stream, string(event.DocumentKey))
	return nil
}

func run(ctx context.Context, stream, url string) error {
	connection, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer connection.Close()
	js, err := jetstream.New(connection)
	if err != nil {
		return err
	}
	// One at a time: the next comes when this one is acknowledged, so that a failed one comes again before it.
	consumer, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable:       "go-example",
		AckPolicy:     jetstream.AckExplicitPolicy,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		MaxAckPending: 1,
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
		message, err := messages.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		// Ctrl-C waits until the current change is handled and acknowledged.
		begun := context.WithoutCancel(ctx)
		if err := handle(begun, js, message); err != nil {
			return err
		}
		if err := message.DoubleAck(begun); err != nil {
			return err
		}
	}
}

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "go run . STREAM [nats://127.0.0.1:4222]")
		os.Exit(2)
	}
	url := nats.DefaultURL
	if len(os.Args) == 3 {
		url = os.Args[2]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], url); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
