package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

// form is how events are written.
type form struct {
	contentType string
	// preamble comes before everything else.
	preamble string
	// entries, with the position to resume at and the fields of an object of entries, and named, with a name and an object, are formats
	// of events; idle is what is sent when there is nothing else.
	entries, named, idle string
}

var (
	// serverSent is for browsers. Named events carry no id: the position stays where the last entries left it.
	serverSent = form{
		contentType: "text/event-stream",
		preamble:    "retry: 500\n\n",
		entries:     "id: %s\ndata: {%s}\n\n",
		named:       "event: %s\ndata: %s\n\n",
		idle:        ":\n\n",
	}
	// jsonLines is for programs: an object a line.
	jsonLines = form{
		contentType: "application/jsonl",
		entries:     "{\"next\":\"%s\",%s}\n",
		named:       "{\"%s\":%s}\n",
		idle:        "{}\n",
	}
)

// formOf returns the form that a request asks for, by the parameter format or else by its header.
func formOf(r *http.Request) (form, error) {
	switch format := r.URL.Query().Get("format"); format {
	case "sse":
		return serverSent, nil
	case "jsonl":
		return jsonLines, nil
	case "":
	default:
		return form{}, fault.New(fault.Invalid, "parameter format is %q; it must be sse or jsonl", clip(format))
	}
	for _, media := range []string{"application/jsonl", "application/x-ndjson"} {
		if strings.Contains(r.Header.Get("Accept"), media) {
			return jsonLines, nil
		}
	}
	return serverSent, nil
}

// eventWriter writes responses as events.
type eventWriter struct {
	w       http.ResponseWriter
	form    form
	batch   *batch
	buf     bytes.Buffer
	started bool
}

func (o *eventWriter) headers() {
	o.w.Header().Set("Content-Type", o.form.contentType)
	o.w.Header().Set("Cache-Control", "no-store")
	o.w.Header().Set("X-Accel-Buffering", "no")
}

func (o *eventWriter) response(res *daybookv1.FollowResponse) error {
	if s := res.GetStream(); s != nil {
		data, err := messageJSON(s)
		if err != nil {
			return err
		}
		if err := o.event("state", data); err != nil {
			return err
		}
	}
	o.batch.addMissing(res.GetMissing())
	for _, e := range res.GetLogs() {
		for all := false; !all; {
			if o.batch.full(eventLimits) {
				if err := o.entries(); err != nil {
					return err
				}
			}
			var err error
			if all, err = o.batch.add(e, eventLimits, 0); err != nil {
				return err
			}
		}
	}
	if !o.batch.empty() {
		if err := o.entries(); err != nil {
			return err
		}
	}
	if end := res.GetEnd(); end != nil {
		data, err := messageJSON(end)
		if err != nil {
			return err
		}
		if err := o.event("end", data); err != nil {
			return err
		}
	}
	return o.flush()
}

// entries writes what the batch holds.
func (o *eventWriter) entries() error {
	next := o.batch.next
	var fields bytes.Buffer
	if err := o.batch.appendTo(&fields); err != nil {
		return err
	}
	return o.write(o.form.entries, next, fields.Bytes())
}

// event writes a named event.
func (o *eventWriter) event(name string, data []byte) error { return o.write(o.form.named, name, data) }

// heartbeat shows that the connection lives.
func (o *eventWriter) heartbeat() error {
	if err := o.write("%s", o.form.idle); err != nil {
		return err
	}
	return o.flush()
}

// finish ends the events after the reader ended with err. A client that was not told of the end comes again.
func (o *eventWriter) finish(err error) error {
	if err == nil || !o.started {
		return err
	}
	data, jsonErr := json.Marshal(errorBody(err))
	if jsonErr != nil {
		return jsonErr
	}
	if writeErr := o.event("fault", data); writeErr != nil {
		return writeErr
	}
	return errors.Join(err, o.flush())
}

func (o *eventWriter) write(format string, args ...any) error {
	o.buf.Reset()
	if !o.started {
		o.started = true
		o.headers()
		o.buf.WriteString(o.form.preamble)
	}
	fmt.Fprintf(&o.buf, format, args...)
	if err := extendWrite(o.w); err != nil {
		return err
	}
	_, err := o.w.Write(o.buf.Bytes())
	return clientGone(err)
}

func (o *eventWriter) flush() error { return flush(o.w) }

// flush sends what the server has buffered.
func flush(w http.ResponseWriter) error {
	err := http.NewResponseController(w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return clientGone(err)
}
