# Models and updates as bytes: the safetensors layout (haina.artifact) and the codecs "float32" and "raw" (haina.wire.codecs).
#
# R's numbers are doubles, so "raw" and float64 models are exact to the bit; float32 is rounded once, to the nearest.

DTYPES <- list(F64 = list("double", 8L), F32 = list("double", 4L))
MAX_HEADER <- 1e8

#' The numbers of a model
#'
#' Reads the bytes of a model: the length of a header (8 bytes, little-endian), the header (JSON: names, dtypes, shapes and places of tensors), then
#' the numbers, in the order of the header.
#'
#' @param bytes a raw vector: the bytes of a model, as `haina models fetch` writes them.
#' @return A list: `params`, all numbers in one numeric vector; `layout`, a list with a `name`, a `dtype`, a `shape` and a number of elements
#'   (`size`) for each tensor. Models of other dtypes than float32 and float64 are refused.
#' @references The safetensors format, <https://github.com/huggingface/safetensors#format>.
#' @seealso [model_bytes()], its inverse.
#' @export
model_params <- function(bytes) {
  damaged <- function(what) haina_stop(what, remedy = "The download or file is damaged", class = "haina_layout_error")
  if (length(bytes) < 8L) damaged(sprintf("%d bytes are too few for a model", length(bytes)))
  size <- sum(as.integer(bytes[1:8]) * 256^(0:7))
  if (size > MAX_HEADER || 8 + size > length(bytes)) {
    damaged(sprintf("the header claims %.0f bytes of %.0f", size, length(bytes)))
  }
  header <- tryCatch(jsonlite::fromJSON(rawToChar(bytes[8L + seq_len(size)]), simplifyVector = FALSE),
                     error = function(error) damaged("the header is not JSON"))
  header[["__metadata__"]] <- NULL
  if (!is.list(header) || !length(header) || is.null(names(header))) damaged("the header names no tensors")
  if (anyDuplicated(names(header))) damaged("the header says a name twice")
  layout <- lapply(names(header), function(name) tensor(name, header[[name]], damaged))
  begins <- cumsum(c(0, vapply(layout, function(part) part$size * DTYPES[[part$dtype]][[2L]], 0)))
  places <- vapply(header, function(entry) as.double(unlist(entry$data_offsets)), c(0, 0))
  if (any(places[1L, ] != begins[-length(begins)]) || any(places[2L, ] != begins[-1L])) {
    damaged("the tensors do not lie one after the other")
  }
  if (8 + size + begins[[length(begins)]] != length(bytes)) damaged("the numbers are not as many as the header says")
  kinds <- rle(vapply(layout, `[[`, "", "dtype"))
  sizes <- vapply(split(vapply(layout, `[[`, 0, "size"), rep(seq_along(kinds$lengths), kinds$lengths)), sum, 0)
  # Through a connection: a piece of a raw vector would be copied by an index of eight bytes for each byte.
  source <- rawConnection(bytes)
  on.exit(close(source))
  readBin(source, "raw", 8 + size)
  runs <- lapply(seq_along(sizes), function(i) {
    readBin(source, "double", sizes[[i]], DTYPES[[kinds$values[[i]]]][[2L]], endian = "little")
  })
  list(params = if (length(runs) == 1L) runs[[1L]] else unlist(runs), layout = layout)
}

tensor <- function(name, entry, damaged) {
  shape <- as.double(unlist(entry$shape))
  if (!is.list(entry) || length(entry$data_offsets) != 2L || anyNA(shape) || any(shape < 0) || length(shape) > 64L) {
    damaged(sprintf("tensor '%s' has an unusable description", cut_text(name, 100L)))
  }
  if (is.null(DTYPES[[as.character(entry$dtype)]])) {
    haina_stop(sprintf("tensor '%s' holds %s", cut_text(name, 100L), cut_text(entry$dtype, 20L)), "F32 and F64",
               class = "haina_layout_error")
  }
  list(name = name, dtype = entry$dtype, shape = shape, size = prod(shape))
}

#' The bytes of a model
#'
#' @param params a numeric vector: the numbers of all tensors, one after the other.
#' @param layout a list with `name`, `dtype` ("F64" or "F32") and `shape` for each tensor, as [model_params()] gives it; by default one
#'   float64 vector called `params`.
#' @return A raw vector; the same numbers and layout always give the same bytes, and their SHA-256 is the model's identity.
#' @seealso [model_params()], its inverse.
#' @export
model_bytes <- function(params, layout = list(list(name = "params", dtype = "F64", shape = length(params)))) {
  sizes <- vapply(layout, function(part) prod(part$shape), 0)
  if (sum(sizes) != length(params)) {
    haina_stop(sprintf("params has %d numbers", length(params)), sprintf("%.0f, as the layout", sum(sizes)))
  }
  widths <- vapply(layout, function(part) DTYPES[[part$dtype]][[2L]], 0L)
  ends <- cumsum(sizes * widths)
  entries <- vapply(seq_along(layout), function(i) {
    part <- layout[[i]]
    sprintf("%s:{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%.0f,%.0f]}", utf8_string(part$name), part$dtype,
            paste(sprintf("%.0f", part$shape), collapse = ","), ends[[i]] - sizes[[i]] * widths[[i]], ends[[i]])
  }, "")
  head <- charToRaw(enc2utf8(paste0("{", paste(entries, collapse = ","), "}")))
  head <- c(head, rep(as.raw(0x20), -length(head) %% 8L))
  lengths <- as.raw((length(head) %/% 256^(0:7)) %% 256)
  last <- cumsum(sizes)
  body <- lapply(seq_along(layout), function(i) {
    float_bytes(params[seq.int(last[[i]] - sizes[[i]] + 1, length.out = sizes[[i]])], widths[[i]])
  })
  c(lengths, head, unlist(body))
}

# A name in a model's header: quoted, and beyond ASCII as it is.
utf8_string <- function(text) {
  codes <- utf8ToInt(enc2utf8(text))
  out <- vapply(codes, function(code) if (code > 127L) intToUtf8(code) else json_escape(code), "")
  paste0("\"", paste(out, collapse = ""), "\"")
}

doubles_of <- function(bytes, width) readBin(bytes, "double", length(bytes) / width, width, endian = "little")

float_bytes <- function(x, width) writeBin(as.double(x), raw(), width, endian = "little")

#' Read a vector from a file of bytes
#'
#' @param path the file.
#' @param codec how it is written: `"raw"` (float64) or `"float32"`, both little-endian.
#' @return A numeric vector.
#' @export
read_vector <- function(path, codec = c("raw", "float32")) {
  doubles_of(read_whole(path), if (match.arg(codec) == "raw") 8L else 4L)
}

#' Write a vector as a file of bytes
#'
#' Float64 (`"raw"`) keeps every bit; float32 rounds to the nearest.
#'
#' @param x a numeric vector.
#' @inheritParams read_vector
#' @return The path, invisibly.
#' @export
write_vector <- function(x, path, codec = c("raw", "float32")) {
  write_whole(path, vector_bytes(x, match.arg(codec)))
}

# The body of an update.
vector_bytes <- function(x, codec) {
  if (codec == "raw") return(float_bytes(x, 8L))
  if (codec != "float32") haina_stop(paste("the codec is", codec), "float32 and raw from R")
  bytes <- float_bytes(x, 4L)
  # A double beyond float32's range becomes infinite, which nobody meant.
  if (length(x) && max(abs(x)) > 3.4028235e38) haina_stop("an increment is beyond the range of float32", "numbers up to 3.4e38")
  bytes
}
