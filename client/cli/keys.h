// Makes and reads private keys.

#ifndef BACKBONED_CLIENT_CLI_KEYS_H_
#define BACKBONED_CLIENT_CLI_KEYS_H_

#include <openssl/bio.h>
#include <openssl/evp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace backboned::cli {

using Key = std::shared_ptr<EVP_PKEY>;
using Bio = std::unique_ptr<BIO, decltype(&BIO_free_all)>;

// Returns a stream that reads `text`, which must outlive it.
Bio Reader(const std::string& text);

// Returns a stream to write to, and what was written to it.
Bio Writer();
std::string TextOf(const Bio& writer);

// Reads a private key of any kind, PEM without a passphrase. Null: it is none.
Key ParseKey(const std::string& pem);

// Returns the key of curve P-256 in a file, which is made, for its owner alone,
// if there is none. Returns kFailedPrecondition if the file cannot be read or
// written, or is no such key. The message names the file.
absl::StatusOr<Key> ReadOrMakeKey(const std::string& path);

// Returns the public point of a key of P-256: 32 bytes x, 32 bytes y.
std::string PointOf(const Key& key);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_KEYS_H_
