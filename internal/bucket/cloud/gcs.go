package cloud

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	gcsAddress = "https://storage.googleapis.com"
	gcsScope   = "https://www.googleapis.com/auth/devstorage.read_write"
)

// OpenGCS opens a bucket of Google Cloud Storage with the application default credentials. URLs can be signed if these
// hold the private key of a service account.
func OpenGCS(ctx context.Context, name string) (bucket.Bucket, error) {
	b := &gcsBucket{name: name, address: gcsAddress, transport: newTransport()}
	base := &http.Client{Transport: b.transport}
	// The tokens are fetched with the context for as long as the bucket is open.
	ctx = context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, base)
	creds, err := google.FindDefaultCredentials(ctx, gcsScope)
	emulator := os.Getenv("STORAGE_EMULATOR_HOST")
	switch {
	case err != nil && emulator == "":
		return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: %w", name, err)
	case err == nil && len(creds.JSON) != 0:
		if b.signer, err = newGCSSigner(creds.JSON); err != nil {
			return nil, fault.New(fault.Precondition, "open Google Cloud Storage bucket %s: %w", name, err)
		}
	}
	if emulator != "" {
		if !strings.Contains(emulator, "://") {
			emulator = "http://" + emulator
		}
		b.address, b.client = strings.TrimSuffix(emulator, "/"), base
	} else {
		b.client = oauth2.NewClient(ctx, creds.TokenSource)
	}
	return &object{provider: b, base: "gs://" + name}, nil
}

// gcsBucket is a bucket of Google Cloud Storage, spoken to in its JSON API.
type gcsBucket struct {
	name    string
	address string
	client  *http.Client
	signer  *gcsSigner // nil if URLs cannot be signed

	transport *http.Transport
}

// gcsObject is an object as the API describes it.
type gcsObject struct {
	Name            string    `json:"name,omitempty"`
	Size            string    `json:"size,omitempty"`
	Updated         time.Time `json:"updated,omitzero"`
	MD5Hash         string    `json:"md5Hash,omitempty"`
	ContentType     string    `json:"contentType,omitempty"`
	ContentEncoding string    `json:"contentEncoding,omitempty"`
}

func (o *gcsObject) info() (bucket.Info, error) {
	size, err := strconv.ParseInt(o.Size, 10, 64)
	if err != nil {
		return bucket.Info{}, fmt.Errorf("the size of object %s is %q", o.Name, o.Size)
	}
	info := bucket.Info{Key: o.Name, Size: size, Modified: o.Updated}
	if sum, err := base64.StdEncoding.DecodeString(o.MD5Hash); err == nil && len(sum) == 16 {
		info.MD5 = sum // objects that were composed of others have none
	}
	return info, nil
}

// gcsError is what the API answers when it fails.
type gcsError struct {
	status  int
	message string
	reason  string
}

func (e *gcsError) Error() string {
	return fmt.Sprintf("%s (%d %s)", cmp.Or(e.message, "no reason was given"), e.status, http.StatusText(e.status))
}

func (b *gcsBucket) objectURL(key string) string {
	return fmt.Sprintf("%s/storage/v1/b/%s/o/%s", b.address, url.PathEscape(b.name), url.PathEscape(key))
}

// do sends a request. Any answer but those of the given statuses is an error. The caller closes the body.
func (b *gcsBucket) do(ctx context.Context, method, address string, header http.Header, body io.Reader, size int64, good ...int) (*http.Response, error) {
	if size == 0 {
		body = http.NoBody // a length of zero means unknown otherwise
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if part, ok := body.(*io.SectionReader); ok {
		// It can be sent again if the server has closed the connection meanwhile.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(part, 0, size)), nil }
	}
	if header != nil {
		req.Header = header
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	for _, status := range good {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	failure := &gcsError{status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, errors.Join(failure, err)
	}
	var answer struct {
		Error struct {
			Message string
			Errors  []struct{ Reason string }
		}
	}
	if json.Unmarshal(text, &answer) == nil {
		failure.message = answer.Error.Message
		if len(answer.Error.Errors) != 0 {
			failure.reason = answer.Error.Errors[0].Reason
		}
	} else {
		failure.message = string(bytes.TrimSpace(text[:min(len(text), 200)]))
	}
	return nil, failure
}

// ask sends a request without a body and decodes the answer.
func (b *gcsBucket) ask(ctx context.Context, address string, answer any) error {
	resp, err := b.do(ctx, http.MethodGet, address, nil, nil, 0, http.StatusOK)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(answer)
}

// upload begins an upload, which the API calls resumable, and sends the parts. The object appears with the last one, if the
// content has the sum that was told in the beginning.
func (b *gcsBucket) upload(ctx context.Context, key string, o bucket.Object) error {
	meta, err := json.Marshal(gcsObject{
		ContentType: contentType, ContentEncoding: o.Encoding, MD5Hash: base64.StdEncoding.EncodeToString(o.MD5),
	})
	if err != nil {
		return err
	}
	query := url.Values{"uploadType": {"resumable"}, "name": {key}}
	if o.IfAbsent {
		query.Set("ifGenerationMatch", "0")
	}
	address := fmt.Sprintf("%s/upload/storage/v1/b/%s/o?%s", b.address, url.PathEscape(b.name), query.Encode())
	header := http.Header{"Content-Type": {"application/json"}, "X-Upload-Content-Type": {contentType}}
	resp, err := b.do(ctx, http.MethodPost, address, header, bytes.NewReader(meta), int64(len(meta)), http.StatusOK)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	session := resp.Header.Get("Location")
	if session == "" {
		return errors.New("the server begins no upload")
	}
	for at := int64(0); ; at += partSize {
		size := min(partSize, o.Size-at)
		last := at+size == o.Size
		header := http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", at, at+size-1, o.Size)}}
		if o.Size == 0 {
			header.Set("Content-Range", "bytes */0")
		}
		good := http.StatusPermanentRedirect // which this API answers to a part that is not the last
		if last {
			good = http.StatusOK
		}
		resp, err := b.do(ctx, http.MethodPut, session, header, io.NewSectionReader(o.Content, at, size), size, good)
		if err != nil {
			var failure *gcsError
			if errors.As(err, &failure) && (failure.status == http.StatusNotFound || failure.status == http.StatusGone) {
				return fmt.Errorf("the upload that was begun is gone: %s", failure.message) // which is no missing bucket
			}
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if last {
			return nil
		}
		// The server says how much it has. Less than was sent is rare, and then the whole is tried again.
		if got := resp.Header.Get("Range"); got != fmt.Sprintf("bytes=0-%d", at+size-1) {
			return fmt.Errorf("the server has %q of the first %d bytes", got, at+size)
		}
	}
}

func (b *gcsBucket) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	// Accepting the encoding keeps the server from taking it off, and thus from ignoring the range.
	header := http.Header{"Accept-Encoding": {"gzip"}}
	if r := rangeOf(offset, length); r != "" {
		header.Set("Range", r)
	}
	resp, err := b.do(ctx, http.MethodGet, b.objectURL(key)+"?alt=media", header, nil, 0, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	if err := checkRange(offset, resp.Header.Get("Content-Range")); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, nil
}

func (b *gcsBucket) stat(ctx context.Context, key string) (bucket.Info, error) {
	var o gcsObject
	if err := b.ask(ctx, b.objectURL(key), &o); err != nil {
		return bucket.Info{}, err
	}
	return o.info()
}

func (b *gcsBucket) list(ctx context.Context, prefix, mark string, most int) (objects []bucket.Info, next string, err error) {
	query := url.Values{
		"prefix": {prefix}, "maxResults": {strconv.Itoa(most)}, "fields": {"nextPageToken,items(name,size,updated,md5Hash)"},
	}
	if mark != "" {
		query.Set("pageToken", mark)
	}
	var answer struct {
		Items         []gcsObject
		NextPageToken string
	}
	address := fmt.Sprintf("%s/storage/v1/b/%s/o?%s", b.address, url.PathEscape(b.name), query.Encode())
	if err := b.ask(ctx, address, &answer); err != nil {
		return nil, "", err
	}
	for _, o := range answer.Items {
		info, err := o.info()
		if err != nil {
			return nil, "", err
		}
		objects = append(objects, info)
	}
	return objects, answer.NextPageToken, nil
}

func (b *gcsBucket) remove(ctx context.Context, key string) error {
	resp, err := b.do(ctx, http.MethodDelete, b.objectURL(key), nil, nil, 0, http.StatusNoContent, http.StatusOK)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (b *gcsBucket) sign(_ context.Context, key string, ttl time.Duration) (string, error) {
	if b.signer == nil {
		return "", errUnsigned
	}
	return b.signer.sign(b.address, b.name, key, time.Now(), ttl)
}

func (b *gcsBucket) close() { b.transport.CloseIdleConnections() }

// errUnsigned says that there is no key to sign with.
var errUnsigned = errors.New("the application default credentials hold no private key of a service account")

func (*gcsBucket) explain(err error) problem {
	if errors.Is(err, errUnsigned) {
		return unknown
	}
	var failure *gcsError
	if !errors.As(err, &failure) {
		return failed
	}
	switch failure.status {
	case http.StatusNotFound:
		if strings.Contains(failure.message, "specified bucket") {
			return missing
		}
		return absent
	case http.StatusForbidden:
		if strings.HasSuffix(strings.ToLower(failure.reason), "ratelimitexceeded") {
			return failed
		}
		return denied
	case http.StatusPreconditionFailed:
		return exists
	case http.StatusRequestedRangeNotSatisfiable:
		return beyond
	}
	return failed
}
