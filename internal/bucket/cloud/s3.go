package cloud

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// S3 describes a bucket of S3, or of a store that speaks its protocol.
type S3 struct {
	Bucket string
	// Profile names a section of the configuration files; empty is the default one.
	Profile string
	// Endpoint is the URL of a compatible store; empty is S3 itself.
	Endpoint string
	// Region is required, also with an endpoint, unless the environment or the profile has one.
	Region string
	// ACL, StorageClass, SSE (server-side encryption) and SSEKMSKeyID (the key for it) apply to what is written; empty
	// leaves each to the bucket.
	ACL, StorageClass, SSE, SSEKMSKeyID string
}

// OpenS3 opens a bucket. It does not reach for it yet.
func OpenS3(ctx context.Context, o S3) (bucket.Bucket, error) {
	load := []func(*config.LoadOptions) error{
		// Compatible stores do not know the checksums that newer SDKs send and want everywhere.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(adjust)),
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open S3 bucket %s: %w", o.Bucket, err)
	}
	if cfg.Region == "" {
		return nil, fault.New(fault.Precondition, "open S3 bucket %s: no region is configured", o.Bucket)
	}
	client := s3.NewFromConfig(cfg, func(so *s3.Options) {
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
			so.UsePathStyle = true
		}
	})
	return &object{provider: &s3Bucket{S3: o, client: client}, base: "s3://" + o.Bucket}, nil
}

// s3Bucket is a bucket of S3.
type s3Bucket struct {
	S3
	client *s3.Client
}

func (b *s3Bucket) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.Bucket, Key: &key, Range: text(rangeOf(offset, length))})
	if err != nil {
		return nil, err
	}
	if err := checkRange(offset, aws.ToString(out.ContentRange)); err != nil {
		return nil, errors.Join(err, out.Body.Close())
	}
	return out.Body, nil
}

func (b *s3Bucket) stat(ctx context.Context, key string) (bucket.Info, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.Bucket, Key: &key})
	if err != nil {
		return bucket.Info{}, err
	}
	info := bucket.Info{Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}
	if out.ServerSideEncryption == "" || out.ServerSideEncryption == types.ServerSideEncryptionAes256 {
		info.MD5 = sumOfETag(aws.ToString(out.ETag))
	}
	return info, nil
}

// sumOfETag returns the MD5 sum that an entity tag is, unless the object was uploaded in parts or encrypted with a key.
func sumOfETag(tag string) []byte {
	sum, err := hex.DecodeString(strings.Trim(tag, `"`))
	if err != nil || len(sum) != 16 {
		return nil
	}
	return sum
}

func (b *s3Bucket) list(ctx context.Context, prefix, mark string, most int) (objects []bucket.Info, next string, err error) {
	out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &b.Bucket, Prefix: text(prefix), ContinuationToken: text(mark), MaxKeys: aws.Int32(int32(most)),
	})
	if err != nil {
		return nil, "", err
	}
	for _, o := range out.Contents {
		objects = append(objects, bucket.Info{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
	}
	if aws.ToBool(out.IsTruncated) {
		next = aws.ToString(out.NextContinuationToken)
	}
	return objects, next, nil
}

func (b *s3Bucket) remove(ctx context.Context, key string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.Bucket, Key: &key})
	return err
}

func (b *s3Bucket) sign(ctx context.Context, key string, ttl time.Duration) (string, error) {
	signed, err := s3.NewPresignClient(b.client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &b.Bucket, Key: &key}, s3.WithPresignExpires(ttl))
	if err != nil {
		return "", err
	}
	return signed.URL, nil
}

func (*s3Bucket) close() {}

func (*s3Bucket) explain(err error) problem {
	code, status := "", 0
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	switch code {
	case "NoSuchBucket":
		return missing
	case "NoSuchUpload", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "RequestTimeTooSkewed":
		// What is wrong is not what the caller may do.
		return failed
	case "NotImplemented":
		return unknown
	}
	switch status {
	case http.StatusNotFound:
		return absent
	case http.StatusForbidden:
		return denied
	case http.StatusPreconditionFailed:
		return exists
	case http.StatusRequestedRangeNotSatisfiable:
		return beyond
	}
	return failed
}
