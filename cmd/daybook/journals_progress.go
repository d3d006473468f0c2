package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// progress shows on a terminal how far a long transfer is. nil shows nothing.
type progress struct {
	w     io.Writer
	width int
	begin time.Time
	done  atomic.Int64
	total atomic.Int64 // 0 if it is not known.
	stop  chan struct{}
	shown sync.WaitGroup

	mu    sync.Mutex // Held while the terminal is written to.
	drawn bool       // There is a line to be cleared.
}

// newProgress returns a progress on stderr, if that is a terminal that nothing else writes to: out, where the content goes or
// comes from, must not be one.
func newProgress(e *env, content *os.File) *progress {
	if !term.IsTerminal(int(e.stderr.Fd())) || term.IsTerminal(int(content.Fd())) {
		return nil
	}
	width, _, err := term.GetSize(int(e.stderr.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	p := &progress{w: e.stderr, width: width, begin: time.Now(), stop: make(chan struct{})}
	p.shown.Go(p.show)
	return p
}

// add counts bytes that were transferred.
func (p *progress) add(n int) {
	if p != nil {
		p.done.Add(int64(n))
	}
}

// expect counts bytes that there will be.
func (p *progress) expect(n int64) {
	if p != nil {
		p.total.Add(n)
	}
}

// end clears the line.
func (p *progress) end() {
	if p != nil {
		close(p.stop)
		p.shown.Wait()
	}
}

// note writes a text to w, where the line is drawn, in its place.
func (p *progress) note(w io.Writer, text string) {
	if p == nil {
		_, _ = io.WriteString(w, text)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	_, _ = io.WriteString(w, text)
}

// clear removes the line. The caller holds p.mu.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprintf(p.w, "%s\r", strings.Repeat(" ", p.width-1))
		p.drawn = false
	}
}

// draw leaves the cursor where the line begins, so that whatever else is written there takes its place.
func (p *progress) draw(elapsed time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.w, progressLine(p.done.Load(), p.total.Load(), elapsed, p.width-1)+"\r")
	p.drawn = true
}

// show draws from the second second on, so that what is quick leaves the terminal alone.
func (p *progress) show() {
	ticker := time.NewTicker(time.Second / 5)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			p.mu.Lock()
			p.clear()
			p.mu.Unlock()
			return
		case <-ticker.C:
			if elapsed := time.Since(p.begin); elapsed > time.Second {
				p.draw(elapsed)
			}
		}
	}
}

// progressLine is a line of exactly width cells.
func progressLine(done, total int64, elapsed time.Duration, width int) string {
	rate := bytesText(int64(float64(done)/elapsed.Seconds())) + "/s"
	text := fmt.Sprintf(" %s, %s", bytesText(done), rate)
	if total > 0 {
		part := min(1, float64(done)/float64(total))
		text = fmt.Sprintf(" %3.0f%% of %s, %s", 100*part, bytesText(total), rate)
		if room := width - len(text) - 2; room >= 10 {
			full := int(part * float64(room))
			text = "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]" + text
		}
	}
	return fmt.Sprintf("%-*.*s", width, width, text)
}
