package butler

import (
	"runtime/debug"

	"github.com/daybook-dev/daybook/internal/fault"
)

// AddStreamServer adds a StreamServer to the Butler. It may be called anytime before or during Butler execution.
//
// After this call completes, the Butler assumes ownership of the StreamServer.
func (b *Butler) AddStreamServer(streamServer StreamServer) {
	b.mu.Lock()
	if b.finished {
		b.mu.Unlock()
		streamServer.Close()
		b.serve(streamServer)
		return
	}
	defer b.mu.Unlock()
	b.serving++
	go func() {
		defer b.served()
		b.serve(streamServer)
	}()
	b.servers = append(b.servers, streamServer)
	if b.closing {
		b.closeAdded()
	}
}

// serve takes the streams of a server until there are no more.
func (b *Butler) serve(server StreamServer) {
	defer func() {
		if r := recover(); r != nil {
			b.log.Error("a stream server panicked", "panic", r, "stack", string(debug.Stack()))
			b.shutdown(fault.New(fault.Internal, "butler: a stream server panicked: %v", r))
		}
	}()
	for {
		rc, d := server.Next()
		if rc == nil {
			return
		}
		err := b.AddStream(rc, d)
		if err == nil {
			continue
		}
		b.log.Warn("a stream was refused", "error", err)
		if a, ok := rc.(Answerer); ok {
			a.Answer("", err)
		}
		if err := rc.Close(); err != nil {
			b.log.Debug("closing a refused stream", "error", err)
		}
	}
}

// served notes that a server brings no more streams, or was closed.
func (b *Butler) served() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serving--
	b.broadcast()
}

// closeServers begins to close all servers, and those that will be added.
func (b *Butler) closeServers() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
	b.closeAdded()
}

// closeAdded begins to close the servers that were added. b.mu is held.
func (b *Butler) closeAdded() {
	for _, s := range b.servers {
		b.serving++
		go func() {
			defer b.served()
			defer func() {
				if r := recover(); r != nil {
					b.log.Error("closing a stream server panicked", "panic", r, "stack", string(debug.Stack()))
				}
			}()
			s.Close()
		}()
	}
	b.servers = nil
}
