package cloud

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Open opens what a URL names: a bucket, or what lies in it below a prefix.
//
//	s3://BUCKET/PREFIX?region=…&endpoint=…&profile=…
//	gs://BUCKET/PREFIX
//	azure://CONTAINER/PREFIX
//	azure-ad://TENANT/ACCOUNT/CONTAINER/PREFIX
//
// S3 takes the arguments acl, storageClass, sse and sseKmsKeyId, too. The case of their names does not matter.
func Open(ctx context.Context, u *url.URL) (bucket.Bucket, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, "bucket: arguments of the URL: %w", err)
	}
	args := make(map[string]string)
	for name, values := range query {
		lower := strings.ToLower(name)
		switch {
		case u.Scheme != "s3" || !s3Arguments[lower]:
			return nil, fault.New(fault.Invalid, "bucket: %s:// does not know the argument %q", u.Scheme, name)
		case args[lower] != "" || len(values) != 1:
			return nil, fault.New(fault.Invalid, "bucket: the argument %q is there twice", name)
		}
		args[lower] = values[0]
	}
	prefix := strings.Trim(u.Path, "/")
	if u.Scheme == "azure-ad" {
		_, rest, _ := strings.Cut(prefix, "/")
		_, prefix, _ = strings.Cut(rest, "/")
	}
	b, err := OpenWhole(ctx, u, args)
	if err != nil || prefix == "" {
		return b, err
	}
	part, err := bucket.Below(b, prefix)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return part, nil
}

var s3Arguments = map[string]bool{
	"profile": true, "endpoint": true, "region": true, "acl": true, "storageclass": true, "sse": true, "ssekmskeyid": true,
}

// OpenWhole opens the bucket that a URL names, whatever its prefix. Arguments have lower-case names; those that are not known
// do not matter.
func OpenWhole(ctx context.Context, u *url.URL, args map[string]string) (bucket.Bucket, error) {
	if u.Host == "" {
		return nil, fault.New(fault.Invalid, "bucket: the URL names no bucket; give %s://BUCKET/PREFIX", u.Scheme)
	}
	switch u.Scheme {
	case "s3":
		return OpenS3(ctx, S3{
			Bucket: u.Host, Profile: args["profile"], Endpoint: args["endpoint"], Region: args["region"],
			ACL: args["acl"], StorageClass: args["storageclass"], SSE: args["sse"], SSEKMSKeyID: args["ssekmskeyid"],
		})
	case "gs":
		return OpenGCS(ctx, u.Host)
	case "azure":
		return OpenAzure(u.Host)
	case "azure-ad":
		account, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		container, _, _ := strings.Cut(rest, "/")
		return OpenAzureAD(u.Host, account, container)
	}
	return nil, fault.New(fault.Invalid, "bucket: %s:// is not known; s3, gs, azure and azure-ad are", u.Scheme)
}
