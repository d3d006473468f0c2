package streamclient_test

import (
	"context"
	"fmt"
	"os"

	"github.com/daybook-dev/daybook/streamclient"
)

// A program that a Butler started writes a log of its own, which is also printed.
func Example() {
	ctx := context.Background()
	env, err := streamclient.FromEnvironment()
	if err != nil {
		panic(err) // it says how to start the program
	}
	var url string
	out, err := env.Client.NewStream(ctx, "compile/log", streamclient.Tee(os.Stdout), streamclient.Confirm(&url))
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(out, "hello; see", url)
	if err := out.Close(); err != nil {
		panic(err)
	}
}

// A test sees what a program writes.
func ExampleNewFake() {
	client, fake := streamclient.NewFake("test")

	events, err := client.NewDatagramStream(context.Background(), "events", streamclient.WithTags("host", "a1"))
	if err != nil {
		panic(err)
	}
	for _, e := range []string{"start", "stop"} {
		if err := events.SendDatagram([]byte(e)); err != nil {
			panic(err)
		}
	}

	s := fake.Stream("test/events")
	fmt.Printf("%s %q %v\n", s.Flags.Tags["host"], s.Datagrams, s.Closed)
	// Output: a1 ["start" "stop"] false
}
