package wake

import (
	"sync"
	"testing"
)

func TestWakesAreCoalescedAndKeyed(t *testing.T) {
	var h Hub[string]
	h.Wake("nobody")
	a, stopA := h.Watch("k")
	b, stopB := h.Watch("k")
	other, stopOther := h.Watch("other")
	defer stopOther()
	h.Wake("k")
	h.Wake("k", "k")
	for _, c := range []<-chan struct{}{a, b} {
		<-c
		select {
		case <-c:
			t.Fatal("woken twice")
		default:
		}
	}
	select {
	case <-other:
		t.Fatal("woken by another key")
	default:
	}
	stopA()
	h.Wake("k")
	<-b
	stopB()
	if len(h.watchers) != 1 {
		t.Fatalf("%d keys are left", len(h.watchers))
	}
}

func TestNoWakeIsMissed(t *testing.T) {
	var h Hub[int]
	var mu sync.Mutex
	value := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			changed, stop := h.Watch(1)
			defer stop()
			for {
				mu.Lock()
				done := value == 100
				mu.Unlock()
				if done {
					return
				}
				<-changed
			}
		})
	}
	for range 100 {
		mu.Lock()
		value++
		mu.Unlock()
		h.Wake(1)
	}
	wg.Wait()
}
