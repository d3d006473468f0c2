// Package client reads and appends to journals.
//
// Reader makes one Read RPC an io.Reader; RetryReader begins another one whenever that ends early, until its context ends.
//
//	// Copy a range of a journal.
//	io.Copy(os.Stdout, client.NewRetryReader(ctx, rjc, &protocol.ReadRequest{Journal: "a/journal", Offset: 1234, EndOffset: 5678}))
//
// Appender makes one Append RPC an io.WriteCloser, and Append sends content that can be read again, trying again as needed.
// Both are for content that is at hand: a broker cuts off an append that stalls. With a Client, of Dial or NewClient, appends of less
// than 64 KiB to one journal share a stream if the broker has such streams, which takes less than half of what calls of their own do. It must be
// given to Append and NewAppendService itself: a type that embeds it is a client as any other.
//
// Dial connects to one broker or to many. With a RouteCache each call goes to the broker that serves the journal, and with
// DoNotProxy set in its request a reader fetches fragments from their stores by itself, and checks them; OpenFragmentURL is the
// part of it that does so. WatchedList keeps up with journals that come and go, ListAllJournals and ApplyJournals are for
// those who administer them.
//
// AppendService is for everybody else. It batches many small appends into few large ones, orders them, keeps them in files
// until the broker has acknowledged them, and tries again for as long as that takes:
//
//	op := service.StartAppend(&protocol.AppendRequest{Journal: "a/journal"}, nil)
//	op.Writer().WriteString("hello")
//	if err := op.Release(); err != nil {
//		return err // Rolled back.
//	}
//	return op.Err() // Waits for the broker.
//
// With a directory (OpenAppendService) what was released survives the process: the next service on that directory sends
// it. docs/formats/spool.md describes the files.
//
// Appends are atomic: a reader sees all of one or nothing of it. They are made at least once: an append whose
// acknowledgement was lost is made again.
//
// Collector publishes what a process reads and appends, by journal.
//
// Readers and Appenders are used by one goroutine at a time. An AppendService and the futures it returns are safe for
// concurrent use.
package client
