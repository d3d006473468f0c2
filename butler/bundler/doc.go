// Package bundler cuts the bytes of streams into log entries and packs entries of many streams into bundles (spec butler 7).
//
//	b := bundler.New(bundler.Config{MaxSize: 1 << 20, Delay: 50 * time.Millisecond})
//	s, err := b.Register(desc)
//	// A goroutine for each stream:                   One goroutine for all:
//	for {                                             for {
//		buf, err := s.Buffer(ctx)                         bundle, err := b.Next(ctx)
//		n, err := r.Read(buf)                             ship(bundle.Proto)
//		s.Commit(n)                                       bundle.Release()
//	}                                                 }
//	s.Close()
//
// # How data flows
//
// A reader reads straight into blocks of memory, small ones for quiet streams and large ones for busy ones. What it commits
// lies in the stream's queue until Next is called and something is due: data that is as old as the delay, or enough for a whole
// bundle. So while the output is busy, data accumulates and the next bundle is larger. Next takes entries from the streams
// that have data, and only from these; their contents are slices of the blocks. Release gives the memory back.
//
// Memory is bounded over all streams. A stream may hold at most as much as is left for the others, which shares the memory
// fairly among any number of them; a reader beyond that waits in Buffer. Nothing waits while a lock is held, and a stalled
// output stops a stream only when its share is full.
//
// # Order
//
// Bundles have an order, and each stream's entries and then its end appear in it. Every stream ends exactly once, in
// Bundle.Ended, whether it had entries or not.
//
// A Bundler and its Streams are safe for concurrent use, with two exceptions: Next has one caller at a time, and so have Buffer
// and Commit of one stream.
package bundler
