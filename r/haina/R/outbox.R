# The outbox: what is trained and not yet delivered. A site may be killed at any moment, also between the coordinator's acknowledgement and its own
# note of it: then it sends the same bytes again, and the coordinator says "duplicate".
#
#     outbox/ROUND/           made whole, under another name, then renamed
#         manifest.json       what is sent, signed
#         body                the bytes

outbox_put <- function(outbox, manifest, body) {
  final <- file.path(outbox, sprintf("%012.0f", manifest$round))
  draft <- paste0(file.path(outbox, paste0(".", basename(final))), ".new")
  unlink(draft, recursive = TRUE)
  make_folder(draft)
  write_whole(file.path(draft, "body"), body)
  write_whole(file.path(draft, "manifest.json"), to_json(manifest))
  unlink(final, recursive = TRUE)
  if (!file.rename(draft, final)) haina_stop(paste(final, "cannot be written"))
  outbox_parcel(final)
}

outbox_parcel <- function(folder) {
  text <- rawToChar(read_whole(file.path(folder, "manifest.json"), MAX_SECRET))
  list(folder = folder, text = text, manifest = from_json(text, folder), body = file.path(folder, "body"))
}

# Parcels not delivered yet, oldest first; what a kill left unfinished is removed.
outbox_waiting <- function(outbox) {
  folders <- sort(list.files(outbox, all.files = TRUE, no.. = TRUE, full.names = TRUE), method = "radix")
  parcels <- lapply(folders, function(folder) {
    parcel <- if (!startsWith(basename(folder), ".")) tryCatch(outbox_parcel(folder), error = function(error) NULL)
    if (is.null(parcel) || !isTRUE(file.size(parcel$body) == parcel$manifest$bytes)) {
      unlink(folder, recursive = TRUE)
      return(NULL)
    }
    parcel
  })
  Filter(Negate(is.null), parcels)
}

outbox_forget <- function(parcel) unlink(parcel$folder, recursive = TRUE)

# ------------------------------------------------------------------------------------------------ models by their SHA-256

# The bytes of a model: fetched once, resumed where a broken download stopped, verified before use. `fetch(file, offset)` appends. The newest four stay.
cached <- function(folder, sha256, size, fetch) {
  if (!is_sha256(sha256)) trust_stop("what a model is called is no SHA-256")
  make_folder(folder)
  final <- file.path(folder, sha256)
  if (file.exists(final)) {
    Sys.setFileTime(final, Sys.time())
    bytes <- read_whole(final, size)
    if (identical(sha256_hex(bytes), sha256)) return(bytes)
    unlink(final, expand = FALSE)
  }
  part <- paste0(final, ".part")
  here <- if (file.exists(part)) file.size(part) else 0
  if (here > size) {
    unlink(part, expand = FALSE)
    here <- 0
  }
  if (here < size) fetch(part, here)
  bytes <- read_whole(part)
  if (length(bytes) < size) unreachable("a model came in part", remedy = "The rest will be fetched")
  if (!identical(sha256_hex(bytes), sha256)) {
    unlink(part, expand = FALSE)
    unreachable("a model came damaged", remedy = "It will be fetched again")
  }
  file.rename(part, final)
  files <- list.files(folder, full.names = TRUE)
  files <- files[order(file.mtime(files), decreasing = TRUE)]
  unlink(setdiff(files, final)[-(1:3)])
  bytes
}
